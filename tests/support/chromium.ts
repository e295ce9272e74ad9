// Where this machine has a Chromium, if it has one.
import { existsSync } from 'node:fs'

const CHROMIUM_PATHS = [
  process.env.CHROMIUM_PATH ?? '',
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome',
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
]

/** Chromium on this machine; undefined when there is none, and page tests are skipped. */
export const chromiumPath = CHROMIUM_PATHS.find((path) => path !== '' && existsSync(path))
