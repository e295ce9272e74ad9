// The shape of the section `ai` of fork.config.json: providers and their models, routing, budgets.
import * as v from 'valibot'
import { amountUsd, count, flag, matching } from './config-fields.ts'

/** It goes into a header of the answer, which holds no other characters. */
const modelId = matching(
  /^[!-~]{1,100}$/,
  '1 to 100 printable ASCII characters without blanks',
  'Model id as the provider names it, or a seed name such as "dall-e-3" for its living successor.',
)

const textModel = (standard: string) =>
  v.optional(v.pipe(modelId, v.description('The model for tools that answer in words.')), standard)

/** What every provider has, with the models of this version where a fork names none. */
function providerEntries(model: string, successors: string[]) {
  return {
    enabled: v.optional(flag('Whether this provider is asked at all.'), true),
    model: v.optional(modelId, model),
    successors: v.optional(
      v.pipe(v.array(modelId), v.description('Models tried in this order when the one before is gone.')),
      successors,
    ),
    costPerImageUsd: v.optional(
      amountUsd('What one image is expected to cost, in USD; the price table of this version when left out.'),
    ),
  }
}

const Providers = v.strictObject({
  gemini: v.optional(
    v.strictObject({
      ...providerEntries('gemini-2.5-flash-image', ['gemini-nano-banana-2.1']),
      textModel: textModel('gemini-3.5-flash-lite'),
    }),
    {},
  ),
  openai: v.optional(
    v.strictObject({
      ...providerEntries('gpt-image-2.5-flare', ['gpt-image-2']),
      textModel: textModel('gpt-4.1-mini'),
    }),
    {},
  ),
  anthropic: v.optional(v.strictObject(providerEntries('claude-haiku-5-5', ['claude-haiku-4-5'])), {}),
  stability: v.optional(v.strictObject(providerEntries('control-structure', [])), {}),
})

function budget(description: string) {
  return v.optional(
    v.strictObject({
      dailyUsd: v.optional(amountUsd(`${description} in a day (UTC).`)),
      monthlyUsd: v.optional(amountUsd(`${description} in a month (UTC).`)),
    }),
  )
}

/** The section `ai`. */
export const Ai = v.strictObject({
  routing: v.optional(
    v.pipe(
      v.picklist(['ordered', 'cheapest', 'fastest']),
      v.description(
        'Who is asked first: "ordered" goes by the tool\'s list, "cheapest" by expected cost, "fastest" by measured latency.',
      ),
    ),
    'ordered',
  ),
  hedgeAfterMs: v.optional(
    count(
      'With "fastest": time without an answer after which the next provider is asked as well; both are paid. 0 is never.',
      0,
      300_000,
    ),
    0,
  ),
  circuitBreakers: v.optional(flag('Leave a provider that keeps failing alone for a while.'), true),
  providerTimeoutMs: v.optional(count('Time one provider has for its answer.', 1000, 300_000), 30_000),
  deadlineMs: v.optional(count('Time all providers together have.', 1000, 300_000), 60_000),
  cacheSeconds: v.optional(
    count('How long the same photo with the same options is answered from before; 0 is never.', 0, 31_536_000),
    0,
  ),
  cacheSharedBetweenUsers: v.optional(
    flag('Answer one user with what was made for another from the same photo.'),
    false,
  ),
  providers: v.optional(Providers, {}),
  budgets: v.optional(
    v.strictObject({
      dailyUsd: v.optional(amountUsd('Most that may be spent on providers in a day (UTC).'), 25),
      monthlyUsd: v.optional(amountUsd('Most that may be spent on providers in a month (UTC).'), 300),
      freeTierDailyUsd: v.optional(amountUsd('Share of the daily budget open to users who never paid.'), 5),
      providers: v.optional(
        v.strictObject({
          gemini: budget('Most that may be spent on Gemini'),
          openai: budget('Most that may be spent on OpenAI'),
          anthropic: budget('Most that may be spent on Anthropic'),
          stability: budget('Most that may be spent on Stability'),
        }),
        {},
      ),
    }),
    {},
  ),
})
