// The tools this fork offers: what they are, what they cost, and which row of the database stands for each.
import type { Kysely } from 'kysely'
import * as v from 'valibot'
import type { Database } from '../../db/schema.ts'
import { config, type ForkConfig } from '../config.ts'

export type Tool = ForkConfig['tools'][number]

/** The tool that POST /api/process-image invokes. */
export function defaultTool(): Tool {
  const [tool] = config().tools
  if (!tool) throw new Error('fork.config.json has no tool.')
  return tool
}

/** What one run costs, in tokens. */
export function priceOf(tool: Tool, quality: 'standard' | 'high'): number {
  return quality === 'high' ? tool.highQualityPriceTokens : tool.priceTokens
}

/** The request options of an image tool: quality and format, and the tool's own closed enums with their defaults. */
export function optionsSchema(tool: Tool) {
  const own = Object.entries(tool.options).map(
    ([name, option]) => [name, v.optional(v.picklist(option.enum), option.default)] as const,
  )
  return v.strictObject({
    quality: v.optional(v.picklist(['standard', 'high']), 'standard'),
    format: v.optional(v.picklist(['png', 'jpeg', 'webp']), 'png'),
    ...Object.fromEntries(own),
  })
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
