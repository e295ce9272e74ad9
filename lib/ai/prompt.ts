// Prompts: a tool's text with its options filled in, and what is said when a model answers without a picture.
import { AppError } from '../http/errors.ts'

interface PromptTool {
  /** Text with `{{option}}` placeholders, and `{{text}}` for what the user wrote. */
  prompt: string
  /** `phrases` says a value in words; a value without a phrase stands for itself. */
  options: Record<string, { enum: readonly string[]; default: string; phrases?: Record<string, string> | undefined }>
}

const ASPECT_RATIOS = [
  [1, 1],
  [5, 4],
  [4, 3],
  [3, 2],
  [16, 9],
  [2, 1],
  [21, 9],
  [3, 1],
] as const

/** Added to the prompt when the first reply held no image: such models need to be told that a picture is the whole answer. */
export const FIRMER_INSTRUCTION = 'Draw the picture now and answer with the finished image alone.'

/**
 * The prompt for one result. Beside what the user wrote, nothing but the tool's own words gets into it: an option's value must
 * stand in its enum (VALIDATION_FAILED), and a placeholder that no option fills is the fork's mistake (a plain Error). The framing
 * of the picture is asked for where a picture is to become another one.
 */
export function buildPrompt(
  tool: PromptTool,
  options: Record<string, string>,
  { image, text: written }: { image?: { width: number; height: number } | undefined; text?: string | undefined },
): string {
  const text = tool.prompt.replace(/\{\{\s*([^{}]*?)\s*\}\}/g, (_placeholder, name: string) => {
    if (name === 'text' && written !== undefined) return written
    const option = Object.hasOwn(tool.options, name) ? tool.options[name] : undefined
    if (option === undefined) throw new Error(`The prompt's placeholder {{${name}}} is no option of the tool.`)
    const value = (Object.hasOwn(options, name) ? options[name] : undefined) ?? option.default
    if (!option.enum.includes(value)) {
      throw new AppError('VALIDATION_FAILED', `Option ${name} must be one of: ${option.enum.join(', ')}.`)
    }
    return option.phrases?.[value] ?? value
  })
  return image ? `${text.trim()} ${framing(image)}` : text.trim()
}

/** Models keep the frame of the picture they are given only when they are told which it is. */
function framing({ width, height }: { width: number; height: number }): string {
  const ratio = Math.max(width, height) / Math.min(width, height)
  const distance = ([long, short]: readonly [number, number]) => Math.abs(Math.log(ratio / (long / short)))
  const [long, short] = ASPECT_RATIOS.reduce((best, next) => (distance(next) < distance(best) ? next : best))
  const shape = long === short ? 'square' : width > height ? 'landscape' : 'portrait'
  const named = width > height ? `${long}:${short}` : `${short}:${long}`
  return `Keep the framing of the source picture: the result is ${shape} with an aspect ratio of ${named}.`
}
