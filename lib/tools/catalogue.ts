// The tools this fork offers: what they are, what they cost, and which row of the database stands for each.
import type { Kysely } from 'kysely'
import * as v from 'valibot'
import type { Database } from '../../db/schema.ts'
import { makesImage, type Quality } from '../ai/provider.ts'
import { config, type ForkConfig } from '../config.ts'

export type Tool = ForkConfig['tools'][number]

/** What a caller chose of a tool. `format` is there for tools that make an image. */
export type Options = { quality: Quality; format?: 'png' | 'jpeg' | 'webp' } & Record<string, string>

/** The tool that POST /api/process-image invokes. */
export function defaultTool(): Tool {
  const [tool] = config().tools
  if (!tool) throw new Error('fork.config.json has no tool.')
  return tool
}

/** What one run costs, in tokens. */
export function priceOf(tool: Tool, quality: Quality): number {
  if (quality === 'draft') return tool.draftPriceTokens ?? tool.priceTokens
  return quality === 'high' ? tool.highQualityPriceTokens : tool.priceTokens
}

/** What it costs when the result was kept from before: never more than making it. */
export function cachedPriceOf(tool: Tool, quality: Quality): number {
  const full = priceOf(tool, quality)
  return Math.min(full, tool.cachedPriceTokens ?? full)
}

/** The qualities a caller may ask for: drafts only where the fork has a price for them. */
export function qualitiesOf(tool: Tool): Quality[] {
  return tool.draftPriceTokens === undefined ? ['standard', 'high'] : ['draft', 'standard', 'high']
}

/** The request options of a tool: quality, the format of an image, and the tool's own closed enums with their defaults. */
export function optionsSchema(tool: Tool): v.GenericSchema<Record<string, unknown>, Options> {
  const own = Object.fromEntries(
    Object.entries(tool.options).map(([name, option]) => [name, v.optional(v.picklist(option.enum), option.default)]),
  )
  const quality = v.optional(v.picklist(qualitiesOf(tool)), 'standard')
  if (!makesImage(tool.does)) return v.strictObject({ quality, ...own })
  return v.strictObject({ quality, format: v.optional(v.picklist(['png', 'jpeg', 'webp']), 'png'), ...own })
}

let toolIds: Promise<Map<string, string>> | undefined

/** The tools row of a configured tool, written on this process's first use. */
export async function toolId(db: Kysely<Database>, name: string): Promise<string> {
  toolIds ??= syncTools(db).catch((error) => {
    toolIds = undefined
    throw error
  })
  const id = (await toolIds).get(name)
  if (id === undefined) throw new Error(`Tool ${name} has no row.`)
  return id
}

async function syncTools(db: Kysely<Database>): Promise<Map<string, string>> {
  const rows = await db
    .insertInto('tools')
    .values(config().tools.map(({ name, description }) => ({ name, description, api_endpoint: `builtin:${name}` })))
    .onConflict((conflict) =>
      conflict.column('name').doUpdateSet((row) => ({ description: row.ref('excluded.description'), is_active: true })),
    )
    .returning(['name', 'id'])
    .execute()
  return new Map(rows.map(({ name, id }) => [name, id]))
}
