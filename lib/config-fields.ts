// Fields of fork.config.json, each with the sentence that editors show beside it.
import * as v from 'valibot'

export function text(description: string, charactersMax = 200) {
  return v.pipe(v.string(), v.nonEmpty(), v.maxLength(charactersMax), v.description(description))
}

export function count(description: string, min: number, max: number) {
  return v.pipe(v.number(), v.integer(), v.minValue(min), v.maxValue(max), v.description(description))
}

export function amountUsd(description: string) {
  return v.pipe(v.number(), v.minValue(0), v.maxValue(1_000_000), v.description(description))
}

export function flag(description: string) {
  return v.pipe(v.boolean(), v.description(description))
}

/** Text of one form, which `form` names in "must be …". */
export function matching(pattern: RegExp, form: string, description: string) {
  return v.pipe(v.string(), v.regex(pattern, `must be ${form}`), v.description(description))
}

export function email(description: string) {
  return v.pipe(v.string(), v.email(), v.description(description))
}
