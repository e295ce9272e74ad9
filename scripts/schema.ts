// Writes fork.schema.json, which gives editors completion and hover in fork.config.json; --check fails when it is stale.
import { readFileSync, writeFileSync } from 'node:fs'
import { type ConversionConfig, toJsonSchema } from '@valibot/to-json-schema'
import { ConfigFile, Settings, STAGES } from '../lib/config-schema.ts'

type JsonSchema = ReturnType<typeof toJsonSchema>
type JsonSchemaPart = JsonSchema | boolean

/** JSON Schema has no words for these two; the configuration itself still checks them. */
const OPTIONS: ConversionConfig = { typeMode: 'input', ignoreActions: ['check', 'to_lower_case'] }
const SCHEMA_FILE = new URL('../fork.schema.json', import.meta.url)

/** The text that fork.schema.json has to have. */
export function schemaText(): string {
  const { $schema, ...file } = toJsonSchema(ConfigFile, OPTIONS)
  const { $schema: _, ...settings } = toJsonSchema(Settings, OPTIONS)
  const stages = Object.fromEntries(STAGES.map((stage) => [stage, { $ref: '#/definitions/overlay' }]))
  const environments = { type: 'object', properties: stages, additionalProperties: false }
  const schema = {
    $schema,
    title: 'fork.config.json',
    ...file,
    properties: { ...file.properties, environments: { ...propertyOf(file, 'environments'), ...environments } },
    definitions: { overlay: withoutRequired(settings) },
  }
  return `${JSON.stringify(schema, null, 2)}\n`
}

function propertyOf(schema: JsonSchema, name: string): JsonSchema {
  const property = schema.properties?.[name]
  return typeof property === 'object' ? property : {}
}

/** A part of the settings is enough for one environment; but a list replaces the whole list, so its entries stay complete. */
function withoutRequired(part: JsonSchemaPart): JsonSchemaPart {
  if (typeof part === 'boolean') return part
  const { required, default: _, properties, ...rest } = part
  if (!properties) return { ...rest }
  return {
    ...rest,
    properties: Object.fromEntries(Object.entries(properties).map(([name, inner]) => [name, withoutRequired(inner)])),
  }
}

function run(flags: string[]): number {
  const unknown = flags.filter((flag) => flag !== '--check')
  if (unknown.length > 0) {
    console.error(`Unknown: ${unknown.join(' ')}\nUsage: node scripts/schema.ts [--check]`)
    return 2
  }
  const text = schemaText()
  if (!flags.includes('--check')) {
    writeFileSync(SCHEMA_FILE, text)
    return 0
  }
  if (readFileSync(SCHEMA_FILE, 'utf8') === text) return 0
  console.error('fork.schema.json is stale: run node scripts/schema.ts')
  return 1
}

if (import.meta.main) process.exitCode = run(process.argv.slice(2))
