// What the page says otherwise where a tool begins with words instead of a photo, or ends with words instead of a picture.
import { makesPicture, takesPhoto } from './tool.js'

const WRITTEN = {
  uploadPrompt: 'What should it be about?',
  chosenTitle: 'How should it be?',
  optionsNote: '',
  signUpFirst: 'You will be asked to sign up; your words wait here.',
  progressQueued: 'Your words are on their way…',
  errorSessionText: 'Your session has ended; your words are still here.',
  errorBlocked: 'This was declined.',
  errorBlockedText: 'The service refused it under its safety rules. Other words will most likely work.',
  step1Title: 'Say what you want',
  step1Text: 'A sentence or two is enough.',
  step2Title: 'Pick a look',
  resultAlt: 'The finished picture of: {name}',
}

const ANSWERED = {
  promisePrint: 'Copy it, or download it as text',
  resultReady: 'Your text is ready.',
  stopped: 'Stopped. Press the button to pick it up again; the same text is never charged twice.',
  galleryItem: 'Show text {number}, made from {name}',
  step2Title: 'Pick a tone',
  step3Text: 'Copy the text or download it right away.',
  pricesNote: 'If a text fails, nothing is charged.',
  download: 'Download',
  errorNetworkText: 'Check your connection and press the button again. The same text is never charged twice.',
  errorRunning: 'This text is still being made.',
  errorConflictText: 'Its text is no longer kept. Create another to get a new one.',
}

/** The words that differ for this tool, by the names they have in texts.js. */
export function textsOf(tool) {
  return { ...(!takesPhoto(tool) && WRITTEN), ...(!makesPicture(tool) && ANSWERED) }
}
