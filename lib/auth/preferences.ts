// What users may set about themselves: the preferences that the fork names, or any plain value where it names none.
import * as v from 'valibot'
import { config, type ForkConfig } from '../config.ts'
import { validate } from '../http/body.ts'

type Declared = NonNullable<ForkConfig['preferences']>

/** Throws VALIDATION_FAILED unless each preference is one of the fork's and has a value it may have; null stands for none. */
export function requireKnownPreferences(given: Record<string, unknown>): void {
  const { preferences } = config()
  if (preferences) validate(v.strictObject({ preferences: schemaOf(preferences) }), { preferences: given })
}

function schemaOf(preferences: Declared) {
  // Without a prototype: valibot would take the names that every object has for declared ones.
  const entries: Record<string, v.GenericSchema> = Object.create(null)
  for (const [name, preference] of Object.entries(preferences))
    entries[name] = v.optional(v.nullable(formOf(preference)))
  return v.strictObject(entries)
}

function formOf({ type, enum: values }: Declared[string]) {
  switch (type) {
    case 'string':
      return values ? v.picklist(values) : v.string()
    case 'number':
      return v.number()
    case 'boolean':
      return v.boolean()
  }
}
