// What the accounts of local sign-in write to their owners, sent once the request has its answer.
import { config } from '../config.ts'
import { KvError, kv, memoryKv } from '../kv.ts'
import { log } from '../log.ts'
import { type Mail, sendMail } from '../mail.ts'
import { hashSubject } from './throttle.ts'

const PER_ADDRESS = { quota: 5, windowMs: 60 * 60 * 1000 }

const localCounts = memoryKv()

/** Sends a mail, unless the address had its five of the hour. */
export async function sendSparingly(mail: Mail): Promise<void> {
  const windows = [{ key: `mail:${hashSubject(mail.to)}`, ...PER_ADDRESS }]
  const [state] = await kv()
    .countWindows(windows)
    .catch((error: unknown) => {
      if (!(error instanceof KvError)) throw error
      return localCounts.countWindows(windows)
    })
  if (state?.allowed) await sendMail(mail)
  else log('info', 'mail_withheld')
}

export function verificationMail(to: string, link: string): Mail {
  return written(to, 'Confirm your e-mail address', [
    'Please confirm that this address is yours:',
    link,
    'The link is good for 24 hours. If you did not ask for it, ignore this mail.',
  ])
}

export function resetMail(to: string, link: string): Mail {
  return written(to, 'Choose a new password', [
    'You can choose a new password here:',
    link,
    'The link is good for 30 minutes. If you did not ask for it, ignore this mail: your password stays as it is.',
  ])
}

export function addressChangedMail(to: string): Mail {
  return written(to, 'Your e-mail address was changed', [
    'Your account has another e-mail address from now on, and this one is no longer in use.',
    `If that was not you, write to us at once${supportAddress()}.`,
  ])
}

export function addressTakenMail(to: string): Mail {
  return written(to, 'You have an account already', [
    'Somebody asked to use this address for another account. You have an account with it already, so nothing was changed.',
    'If that was you, sign in with this address instead. If not, ignore this mail.',
  ])
}

function written(to: string, subject: string, paragraphs: string[]): Mail {
  const { name } = config().brand
  return { to, subject: `${subject} – ${name}`, text: [...paragraphs, name].join('\n\n') }
}

function supportAddress(): string {
  const { supportEmail } = config().brand
  return supportEmail === undefined ? '' : ` (${supportEmail})`
}
