// Every word the page says of itself, neutral on purpose: what is the fork's own comes from `brand.texts` of its configuration.
import { ACCOUNT_TEXTS } from './texts-account.js'
import { PAYMENT_TEXTS } from './texts-payments.js'
import { textsOf } from './texts-tools.js'

const TEXTS = {
  ...ACCOUNT_TEXTS,
  ...PAYMENT_TEXTS,
  skipLink: 'Skip to the studio',
  picture: 'Picture',
  offlineTitle: 'We cannot reach the service',
  offlineText: 'Check your connection, then try again. Nothing you did is lost.',
  tryAgain: 'Try again',
  close: 'Close',

  promiseTrial: 'Your first {count} are free, no card needed',
  promisePrivacy: 'Location and camera data never leave this device',
  promisePrint: 'Download as PNG, or print on a single page',

  uploadPrompt: 'Choose a photo, or drop it here',
  uploadText: 'You can also paste one from the clipboard.',
  uploadTextTouch: 'From your library, or straight from the camera.',
  choosePhoto: 'Choose a photo',
  takePhoto: 'Take a photo',
  samplePhoto: 'Try with a sample photo',
  samplePhotoHint: 'No photo at hand?',
  preparing: 'Getting your photo ready…',
  changePhoto: 'Other photo',
  photoReady: 'Photo ready: {name}. {width} by {height} pixels.',
  yourPhoto: 'Your photo: {name}',

  chosenTitle: 'How should it look?',
  optionsNote: 'Your photo was shrunk on this device; its location data is gone.',
  quality: 'Quality',
  qualityDraft: 'Draft',
  qualityStandard: 'Standard',
  qualityHigh: 'High',
  createButton: 'Create',
  createAgain: 'Create another',
  working: 'Working on it…',
  free: 'Free',
  freeLeft: '{count} free left',
  tokens: '{count} tokens',
  token: '1 token',
  priceFree: 'Free, {count} left',
  signUpFirst: 'You will be asked to sign up; your photo waits here.',
  generateOff: 'Creating is paused for the moment. Please come back a little later.',

  progressQueued: 'Your photo is on its way…',
  progressProvider: '{provider} is working on it…',
  progressFallback: '{from} is busy, {to} takes over…',
  progressReconnecting: 'The connection dropped, picking up where we were…',
  progressElapsed: '{seconds} s',
  stopWaiting: 'Stop waiting',
  stopped: 'Stopped. Press the button to pick it up again; the same picture is never charged twice.',

  resultTitle: 'Your result',
  resultReady: 'Your picture is ready.',
  resultAlt: 'The finished picture made from {name}',
  compareLabel: 'Compare before and after',
  compareValue: '{percent} % of your photo',
  before: 'Before',
  after: 'After',
  download: 'Download PNG',
  downloadOther: 'Download',
  print: 'Print',
  newPhoto: 'New photo',
  wordsMissing: 'Write a few words first.',
  wordsLeft: '{count} characters left',
  changeWords: 'Change the words',
  copy: 'Copy',
  copied: 'Copied.',
  copyFailed: 'This browser does not let us copy. Select the text instead.',
  madeBy: 'Made by {provider} in {seconds} s',
  chargedFree: 'it was free',
  chargedTokens: 'it cost {count} tokens',
  chargedNothing: 'nothing was charged',
  fallbackNote: '{failed} did not answer in time, so {provider} made this one.',
  details: 'Details',
  detailProvider: 'Provider',
  detailModel: 'Model',
  detailSize: 'Size',
  detailTime: 'Time',
  detailCost: 'Provider cost',
  detailCharge: 'Charged',
  detailRequest: 'Request',
  gallery: 'This visit',
  galleryHint: 'Kept only in this tab, so download the ones you like.',
  galleryItem: 'Show picture {number}, made from {name}',

  stepsTitle: 'How it works',
  step1Title: 'Choose a photo',
  step1Text: 'Clear pictures with one subject work best.',
  step2Title: 'Pick a look',
  step2Text: 'A few simple choices, no instructions to write.',
  step3Title: 'Keep it',
  step3Text: 'Download the picture or print it right away.',
  pricesTitle: 'Prices without surprises',
  pricesTrial: 'First {count}',
  pricesEach: 'Each one after that',
  pricesDraft: 'As a draft',
  pricesHigh: 'In high quality',
  pricesMonthly: 'Included every month',
  pricesPlan: '{plan}, {tokens} a month',
  pricesNote: 'If a picture fails, nothing is charged.',

  signIn: 'Sign in',
  signUp: 'Sign up',
  signUpTitle: 'Create your account',
  signUpTitlePending: 'One small step before we start',
  signUpText: 'Your first {count} are free. No card needed.',
  signUpTextNoTrial: 'It takes less than a minute.',
  signInTitle: 'Welcome back',
  signInText: 'Good to see you again.',
  signUpButton: 'Create account',
  signUpButtonPending: 'Create account and go on',
  signInButtonPending: 'Sign in and go on',
  haveAccount: 'Already have an account?',
  noAccount: 'New here?',
  name: 'Name',
  email: 'E-mail',
  password: 'Password',
  showPassword: 'Show',
  hidePassword: 'Hide',
  passwordHint: 'At least {count} characters. A short sentence is easy to remember.',
  passwordTooShort: 'Use at least {count} characters.',
  passwordShort: '{count} more to go',
  passwordGood: 'Long enough',
  nameMissing: 'What should we call you?',
  emailMissing: 'We need an e-mail address to sign you in.',
  emailInvalid: 'This does not look like an e-mail address.',
  passwordMissing: 'Enter your password.',
  legalNote: 'By signing up you accept the {terms} and the {privacy}.',
  terms: 'terms',
  privacy: 'privacy notice',

  balance: 'Balance:',

  footer: 'About this site',
  footerTerms: 'Terms',
  footerPrivacy: 'Privacy',
  footerSupport: 'Support',

  photoNotImage: 'That is not a picture.',
  photoNotImageText: 'Please choose a photo: JPEG, PNG or WebP all work.',
  photoHeic: 'This browser cannot open HEIC photos.',
  photoHeicText:
    'Open the page in Safari, or save the photo as JPEG first (on an iPhone: Settings, Camera, Formats, Most Compatible).',
  photoUnreadable: 'We could not read this picture.',
  photoUnreadableText: 'The file seems damaged or unfinished. Please try another one.',
  photoEmpty: 'This file is empty.',
  photoEmptyText: 'It may not have finished downloading. Please try another one.',
  photoTooSmall: 'This picture is too small.',
  photoTooSmallText: 'It is {width} by {height} pixels; both sides need at least {minimum}.',
  photoSampleGone: 'The sample photo could not be loaded.',

  errorNothingCharged: 'Nothing was charged.',
  errorReference: 'Reference {requestId}',
  errorNetwork: 'The connection was lost.',
  errorNetworkText: 'Check your connection and press the button again. The same picture is never charged twice.',
  errorSession: 'Please sign in again.',
  errorSessionText: 'Your session has ended; your photo is still here.',
  errorTokens: 'Not enough tokens.',
  errorTokensText: 'This needs {required} tokens and you have {balance}: {missing} are missing.',
  errorRate: 'A little too fast.',
  errorRateText: 'You can go on in {seconds} s.',
  errorRateOver: 'You can go on now.',
  errorBlocked: 'This picture was declined.',
  errorBlockedText: 'The image service refused it under its safety rules. Another photo will most likely work.',
  errorProvider: 'That did not work out.',
  errorProviderText: 'The image service made a mistake. It is worth another try.',
  errorTimeout: 'This took too long.',
  errorTimeoutText: 'The image service did not finish in time. It is worth another try.',
  errorUnavailable: 'No image service is free right now.',
  errorUnavailableText: 'This usually passes within a minute or two.',
  errorBudget: 'We have reached our limit for today.',
  errorBudgetText: 'Please come back tomorrow, or write to us.',
  errorOff: 'This is switched off at the moment.',
  errorTooLarge: 'This picture is too large.',
  errorTooLargeText: 'Please choose a smaller one.',
  errorUnreadable: 'We could not read this picture.',
  errorUnreadableText: 'Please choose another one, in JPEG, PNG or WebP.',
  errorSuspended: 'This account is suspended.',
  errorSuspendedText: 'Please contact us if you think this is a mistake.',
  errorRunning: 'This picture is still being made.',
  errorRunningText: 'Give it a moment and press the button again.',
  errorConflict: 'This one was already made.',
  errorConflictText: 'Its picture is no longer kept. Create another to get a new one.',
  errorEmailTaken: 'There is already an account with this e-mail.',
  errorEmailTakenText: 'Sign in instead?',
  errorCredentials: 'E-mail and password do not match.',
  errorOther: 'Something went wrong on our side.',
  errorOtherText: 'Please try again in a moment.',
}

let overrides = {}

/** Takes the words of the tool and, above those, the fork's own, by the names they have here. */
export function setTexts(own, tool) {
  overrides = { ...textsOf(tool), ...own }
}

/** One text with its `{placeholders}` filled in. */
export function t(key, values = {}) {
  const text = overrides[key] ?? TEXTS[key] ?? key
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole))
}

/** `pet-portrait` → `Pet portrait`, for names that come without a label. */
export function humanize(name) {
  const words = name
    .replace(/([a-z])([A-Z])/g, '$1 $2')
    .replace(/[-_]+/g, ' ')
    .trim()
    .toLowerCase()
  return words.charAt(0).toUpperCase() + words.slice(1)
}

export function number(value) {
  return new Intl.NumberFormat().format(value)
}

export function tokensText(count) {
  return count === 1 ? t('token') : t('tokens', { count: number(count) })
}

export function money(cents, currency) {
  const whole = cents % 100 === 0
  const format = { style: 'currency', currency: currency.toUpperCase(), minimumFractionDigits: whole ? 0 : 2 }
  return new Intl.NumberFormat(undefined, format).format(cents / 100)
}

export function dateText(iso) {
  const date = new Date(iso)
  return Number.isNaN(date.getTime()) ? '' : new Intl.DateTimeFormat(undefined, { dateStyle: 'medium' }).format(date)
}

export function dateTimeText(iso) {
  const date = new Date(iso)
  if (Number.isNaN(date.getTime())) return ''
  return new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'short' }).format(date)
}
