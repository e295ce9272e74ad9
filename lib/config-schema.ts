// The shape of fork.config.json: strict valibot schemas, documented so that fork.schema.json gives editors completion and hover.
import * as v from 'valibot'
import { PROVIDER_IDS } from './ai/capabilities.ts'
import { TASKS } from './ai/provider.ts'
import { count, email, flag, matching, text } from './config-fields.ts'
import { Ai } from './config-schema-ai.ts'

export const STAGES = ['development', 'preview', 'production'] as const

const Color = matching(/^#[0-9a-fA-F]{6}$/, 'a colour such as "#1d4ed8"', 'Colour as #rrggbb.')

const PageUrl = matching(
  /^(https:\/\/|\/)[^\s]+$/,
  'an https:// address or a path such as "/terms.html"',
  'An https:// address, or a path on this site.',
)

const Brand = v.strictObject({
  name: text('What the product is called, everywhere it is named.', 60),
  tagline: v.optional(v.pipe(v.string(), v.maxLength(160), v.description('One line under the name.')), ''),
  description: v.optional(text('A sentence for search engines and link previews; the tagline when left out.', 300)),
  logo: v.optional(
    matching(
      /^(\/[\w-][\w.-]*)+\.(svg|png|webp|jpg)$/,
      'the path of a picture under public/, such as "/brand/logo.svg"',
      'Path of a picture under public/, such as "/brand/logo.svg".',
    ),
  ),
  colors: v.optional(v.strictObject({ primary: Color, accent: v.optional(Color) }), { primary: '#1d4ed8' }),
  supportEmail: v.optional(email('Where users write for help.')),
  legal: v.optional(
    v.strictObject({
      company: v.optional(text('Who runs the service.')),
      termsUrl: v.optional(PageUrl),
      privacyUrl: v.optional(PageUrl),
    }),
    {},
  ),
  texts: v.optional(
    v.strictObject({
      uploadPrompt: v.optional(text('Asks for the photo, or for the words; the page has its own when left out.')),
      createButton: v.optional(text('Starts the work.', 40), 'Create'),
      working: v.optional(text('Shown while the work runs.'), 'Working on it…'),
      resultTitle: v.optional(text('Stands above the result.'), 'Your result'),
      downloadName: v.optional(
        matching(
          /^[\w-]{1,60}$/,
          'a file name without extension: letters, digits, "-" and "_"',
          'Name of the downloaded file, without extension.',
        ),
        'result',
      ),
    }),
    {},
  ),
})

const Origin = v.pipe(
  v.string(),
  v.check(isExactOrigin, 'must be an exact origin such as "https://app.example.com" or "http://localhost:5173"'),
  v.description('Exact origin: https://host, or http://localhost:port.'),
)

function isExactOrigin(value: string): boolean {
  if (!URL.canParse(value)) return false
  const { origin, protocol, hostname } = new URL(value)
  const isLocal = protocol === 'http:' && ['localhost', '127.0.0.1', '[::1]'].includes(hostname)
  return origin === value && !hostname.includes('*') && (protocol === 'https:' || isLocal)
}

const PublishableKey = v.pipe(
  v.string(),
  v.check(
    (key) => key === '' || frontendApiOf(key) !== undefined,
    'must be a publishable key of Clerk, such as "pk_test_…"',
  ),
  v.description('Publishable key of the Clerk application: what the page signs in with. It is no secret.'),
)

/** The host of Clerk's frontend API, which a publishable key names; undefined when it is none. */
export function frontendApiOf(publishableKey: string): string | undefined {
  const [, encoded = ''] = /^pk_(?:test|live)_([A-Za-z0-9+/=]+)$/.exec(publishableKey) ?? []
  return /^([a-z0-9.-]+(?::\d+)?)\$$/i.exec(Buffer.from(encoded, 'base64').toString())?.[1]
}

const Auth = v.strictObject({
  provider: v.optional(
    v.pipe(
      v.picklist(['local', 'clerk']),
      v.description('Who checks identities: "local" keeps accounts in the own database, "clerk" asks Clerk.'),
    ),
    'local',
  ),
  admins: v.optional(
    v.pipe(
      v.array(v.pipe(email('The e-mail address of an administrator.'), v.toLowerCase())),
      v.description('Who becomes an administrator as soon as the address is verified, by Clerk or by our own mail.'),
    ),
    [],
  ),
  passwordLengthMin: v.optional(count('Shortest password accepted, in characters.', 8, 72), 12),
  mfaForAdmins: v.optional(flag('Local accounts: administrators need a second factor.'), false),
  deletionGraceDays: v.optional(
    count('Days between the deletion of an account and the purge of its data.', 0, 365),
    30,
  ),
  clerk: v.optional(
    v.strictObject({
      publishableKey: v.optional(PublishableKey, ''),
      authorizedParties: v.optional(
        v.pipe(
          v.array(Origin),
          v.description('Origins whose session tokens are accepted; cors.origins and our own when left out.'),
        ),
        [],
      ),
      allowMissingAzp: v.optional(flag('Accept tokens that name no origin, as mobile apps send them.'), true),
    }),
    {},
  ),
})

const ApiKeys = v.strictObject({
  tag: v.optional(
    matching(
      /^[a-z][a-z0-9]{1,9}$/,
      '2 to 10 lower case letters and digits',
      'What every key of this product begins with.',
    ),
    'key',
  ),
  perUserMax: v.optional(count('Keys one user may have at a time.', 1, 1000), 20),
})

const Preference = v.pipe(
  v.strictObject({
    type: v.picklist(['string', 'number', 'boolean']),
    enum: v.optional(
      v.pipe(v.array(v.string()), v.minLength(1), v.description('The values a preference of type "string" may have.')),
    ),
    description: v.optional(text('Explains the preference to the user.')),
  }),
  v.description('One preference of a user: its type, and the values it may have.'),
)

const OptionValue = matching(/^[\w-]{1,40}$/, '1 to 40 letters, digits, "-" or "_"', 'What a request says.')

const Option = v.strictObject({
  enum: v.pipe(v.array(OptionValue), v.minLength(1), v.description('The values a user may choose from.')),
  default: v.pipe(v.string(), v.description('The value used when the user chooses none.')),
  description: v.optional(text('Explains the choice to the user.')),
  labels: v.optional(
    v.pipe(
      v.record(v.string(), text('What the user sees for this value.', 60)),
      v.description('Value → what the user sees.'),
    ),
  ),
  phrases: v.optional(
    v.pipe(
      v.record(v.string(), v.pipe(v.string(), v.maxLength(1000))),
      v.description('Value → what replaces {{name}} in the prompt; the value itself when left out.'),
    ),
  ),
})

const Tool = v.pipe(
  v.strictObject({
    name: matching(
      /^(?=.{1,100}$)[a-z][a-z0-9]*(-[a-z0-9]+)*$/,
      'lower case with dashes, such as "coloring-page"',
      'Stable id in addresses and usage logs.',
    ),
    title: v.optional(text('What users see; made from the name when left out.', 60)),
    description: text('What the tool does, for users.', 500),
    does: v.optional(
      v.pipe(
        v.picklist(TASKS),
        v.description('What goes in and what comes out; "remove-background" cuts the subject out and needs no prompt.'),
      ),
      'image->image',
    ),
    prompt: text(
      'The instruction to the model. {{name}} stands for the chosen value of the option "name", {{text}} for what the user wrote.',
      10_000,
    ),
    priceTokens: count('Tokens charged for one result.', 1, 1_000_000),
    highQualityPriceTokens: v.optional(
      count('Tokens charged for quality "high"; priceTokens when left out.', 1, 1_000_000),
    ),
    draftPriceTokens: v.optional(
      count('Tokens charged for quality "draft"; without it the tool makes no drafts.', 1, 1_000_000),
    ),
    cachedPriceTokens: v.optional(
      count(
        'Tokens charged when the answer was kept from before (ai.cacheSeconds); the full price when left out.',
        0,
        1_000_000,
      ),
    ),
    inputCharactersMax: v.optional(count('Longest text a user may send to a tool that takes text.', 1, 20_000), 2000),
    providers: v.pipe(
      v.array(v.picklist(PROVIDER_IDS)),
      v.minLength(1),
      v.description('Who may do the work, best first. "sketch" runs on the machine itself and needs no key.'),
    ),
    options: v.optional(
      v.pipe(
        v.record(
          matching(/^[a-z][A-Za-z0-9]{0,39}$/, 'letters and digits, starting in lower case', 'Name of the option.'),
          Option,
        ),
        v.description('What users may choose, by name.'),
      ),
      {},
    ),
  }),
  v.transform((tool) => ({
    ...tool,
    title: tool.title ?? sentenceCase(tool.name),
    highQualityPriceTokens: tool.highQualityPriceTokens ?? tool.priceTokens,
  })),
)

function sentenceCase(name: string): string {
  return name.charAt(0).toUpperCase() + name.slice(1).replaceAll('-', ' ')
}

const Jobs = v.strictObject({
  attemptsMax: v.optional(count('Times a job is tried before it fails for good.', 1, 10), 3),
  keepHours: v.optional(count('Hours a finished job and its result can be fetched.', 1, 720), 24),
  perUserMax: v.optional(count('Jobs one user may have waiting or running at a time.', 1, 10_000), 20),
})

const priceCents = count('Price in cents of payments.currency.', 1, 100_000_000)
const polarProductId = v.optional(
  v.pipe(v.string(), v.maxLength(100), v.description('Product id at Polar; npm run doctor -- --fix makes it.')),
  '',
)

function monthlyTokens(standard: number) {
  return v.optional(count('Tokens granted each month.', 1, 1_000_000_000), standard)
}

const Plans = v.strictObject({
  free: v.optional(v.strictObject({ monthlyTokens: monthlyTokens(1000) }), {}),
  pro: v.optional(v.strictObject({ monthlyTokens: monthlyTokens(50_000), priceCents, polarProductId }), {
    priceCents: 1900,
  }),
  enterprise: v.optional(v.strictObject({ monthlyTokens: monthlyTokens(500_000), priceCents, polarProductId }), {
    priceCents: 9900,
  }),
})

const Pack = v.strictObject({
  id: matching(/^[a-z0-9][a-z0-9-]{0,39}$/, 'lower case letters, digits and "-"', 'Stable id, used by checkouts.'),
  priceCents,
  tokens: count('Tokens the pack holds.', 1, 1_000_000_000),
  polarProductId,
})

const Payments = v.strictObject({
  provider: v.optional(
    v.pipe(
      v.picklist(['none', 'polar']),
      v.description('Who takes the money: "polar" does as soon as its keys are in the environment.'),
    ),
    'none',
  ),
  currency: v.optional(matching(/^[a-z]{3}$/, 'a currency code such as "usd"', 'ISO 4217 code, lower case.'), 'usd'),
  minimumDepositCents: v.optional(count('Smallest purchase of tokens.', 1, 100_000_000), 500),
  tokensPerDollar: v.optional(
    count('Tokens bought by one unit of the currency when the amount is free.', 1, 1_000_000),
    100,
  ),
  pastDueGraceDays: v.optional(count('Days that a plan stays while its payment is late; 0 ends it at once.', 0, 60), 7),
  polarProductId,
  packs: v.optional(v.pipe(v.array(Pack), v.description('Token packs on sale.')), []),
})

function perMinute(description: string, standard: number) {
  return v.optional(v.strictObject({ perMinute: v.optional(count(description, 1, 100_000), standard) }), {})
}

const Limits = v.strictObject({
  generate: perMinute('Images a user may start in a minute.', 10),
  signIn: perMinute('Registrations, sign-ins and refreshes one address may try in a minute.', 60),
  read: perMinute('Other requests a caller may make in a minute.', 120),
  imageBytesMax: v.optional(
    count('Largest photo accepted, in bytes. Vercel refuses bodies over 4.5 MB.', 10_000, 4_500_000),
    4_000_000,
  ),
  uploadBytesMax: v.optional(
    count(
      'Largest photo that may come through Vercel Blob, in bytes; it is scaled down to imageBytesMax.',
      10_000,
      100_000_000,
    ),
    20_000_000,
  ),
  imagePixelsMax: v.optional(count('Largest photo accepted, width × height.', 10_000, 50_000_000), 24_000_000),
  imageSideMin: v.optional(count('Smallest width and height accepted, in pixels.', 1, 4096), 16),
})

const Features = v.strictObject({
  generate: v.optional(flag('Image generation; false is the emergency stop.'), true),
  payments: v.optional(flag('Checkout and plans.'), true),
  apiKeys: v.optional(flag('Keys for programs.'), true),
  asyncJobs: v.optional(flag('Work that is answered later.'), true),
})

const sections = {
  version: v.pipe(v.literal(1), v.description('Version of this file format.')),
  brand: v.pipe(Brand, v.description('What the product is called and how it looks.')),
  auth: v.optional(v.pipe(Auth, v.description('Accounts and sign-in.')), {}),
  tools: v.pipe(v.array(Tool), v.minLength(1), v.description('What users can do. The first tool is the default one.')),
  ai: v.optional(v.pipe(Ai, v.description('Image providers.')), {}),
  trial: v.optional(
    v.pipe(
      v.strictObject({
        generations: v.optional(count('Free images for every new person, spent before tokens.', 0, 1000), 3),
        perNetworkDaily: v.optional(count('Trials given to one network in a day; 0 is no limit.', 0, 1_000_000), 20),
      }),
      v.description('The free trial.'),
    ),
    {},
  ),
  plans: v.optional(v.pipe(Plans, v.description('Monthly plans.')), {}),
  payments: v.optional(v.pipe(Payments, v.description('Money.')), {}),
  limits: v.optional(v.pipe(Limits, v.description('Ceilings per caller and per photo.')), {}),
  apiKeys: v.optional(v.pipe(ApiKeys, v.description('Keys for programs.')), {}),
  preferences: v.optional(
    v.pipe(
      v.record(
        matching(/^[a-zA-Z]\w{0,39}$/, 'a letter, then letters, digits or "_"', 'Name of the preference.'),
        Preference,
      ),
      v.description('What users may set about themselves. Without this section, any name takes any plain value.'),
    ),
  ),
  cors: v.optional(
    v.strictObject({
      origins: v.optional(
        v.pipe(v.array(Origin), v.description('Web pages on other hosts that may call the API.')),
        [],
      ),
    }),
    {},
  ),
  jobs: v.optional(v.pipe(Jobs, v.description('Work that is answered later.')), {}),
  features: v.optional(v.pipe(Features, v.description('Switches.')), {}),
}

/** The settings in force: the file with one environment merged in, without the parts that only steer the merge. */
export const Settings = v.strictObject(sections)

export type ForkConfig = v.InferOutput<typeof Settings>

/** Any part of the settings may differ per environment; the merged whole is what gets validated. */
const Overlay = v.strictObject(Object.fromEntries(Object.keys(sections).map((name) => [name, v.optional(v.unknown())])))

export const ConfigFile = v.strictObject({
  $schema: v.optional(v.string()),
  ...sections,
  environments: v.optional(
    v.pipe(
      v.strictObject({
        development: v.optional(Overlay, {}),
        preview: v.optional(Overlay, {}),
        production: v.optional(Overlay, {}),
      }),
      v.description('What differs per environment. Objects merge; lists and values replace.'),
    ),
    {},
  ),
})
