// Whether anything may be made at all: the setting of the fork, and the operator's emergency stop.
import { config } from '../config.ts'
import { AppError } from '../http/errors.ts'
import { switchedOff } from '../switches.ts'

/** Throws FEATURE_DISABLED while making is off. An operator's reason is for operators: callers hear only that it was one. */
export async function refuseWhileStopped(): Promise<void> {
  const isOff = (await switchedOff('generate')) !== undefined
  const reason = config().features.generate ? (isOff ? 'switched_off' : undefined) : 'features.generate is false.'
  if (reason === undefined) return
  throw new AppError('FEATURE_DISABLED', 'Making images is switched off.', { details: { reason } })
}
