// Who works on jobs: a few workers per instance, started after an answer or by the sweep, each taking one due job after the other.
import { setTimeout as pause } from 'node:timers/promises'
import { afterAnswer } from '../after-answer.ts'
import { env } from '../env.ts'
import { describeError, log } from '../log.ts'
import { shutdownSignal } from '../shutdown.ts'
import { type ClaimedJob, claimJob } from './claim.ts'
import { runJob } from './run.ts'

/** Pictures are held in memory while they are worked on. */
const WORKERS_MAX = 4
/** No job is begun after that, so that it ends before the function does. */
const BEGIN_WITHIN_MS = 120_000

/** A worker's, until it begins no more jobs; as performance.now() gives it. */
interface Place {
  until: number
}

let places: Place[] = []
/** Whoever was refused a place may have come for a job that was not due yet when those at work last looked. */
let refused = false

/** Starts a worker that the answer does not wait for, unless enough are at work here: they take what is due next. */
export async function startWork(): Promise<void> {
  // Taken at once: whoever asks meanwhile finds it taken.
  const place = takePlace(performance.now() + BEGIN_WITHIN_MS)
  if (!place) return
  await afterAnswer('job_worker_failed', async () => {
    await work(place)
  })
}

/** Works on everything that is due, and begins no job after `beginWithinMs`; returns how many ended. */
export async function workDue(beginWithinMs: number): Promise<number> {
  const until = performance.now() + beginWithinMs
  const taken = Array.from({ length: WORKERS_MAX }, () => takePlace(until)).filter((place) => place !== undefined)
  const ended = await Promise.all((taken.length > 0 ? taken : [{ until }]).map(work))
  return ended.reduce((sum, count) => sum + count, 0)
}

/** Undefined when enough are at work. Whoever is past its time begins nothing more, so that its last job keeps nobody away. */
function takePlace(until: number): Place | undefined {
  const now = performance.now()
  places = places.filter((place) => place.until > now)
  if (places.length >= WORKERS_MAX) {
    refused = true
    return undefined
  }
  const place = { until }
  places.push(place)
  return place
}

/** One worker, until nothing is due or its time is over; returns how many jobs ended. Never throws. */
async function work(place: Place): Promise<number> {
  let ended = 0
  let isTimeOver = false
  try {
    for (let job = await nextJob(); job; job = isTimeOver ? undefined : await nextJob()) {
      const ending = await runJob(job)
      if (ending.kind === 'retry') await workLater(ending.afterMs, place.until)
      else if (ending.kind !== 'lost') ended += 1
      isTimeOver = performance.now() >= place.until
    }
  } catch (error) {
    // What was claimed is claimed again when its lease has run out.
    log('warn', 'job_worker_stopped', { error: describeError(error) })
  } finally {
    places = places.filter((other) => other !== place)
  }
  // A server that stays goes on with what is due; of a function that ends, whoever asks for the job sees to it.
  if (isTimeOver && !env().onVercel) await startWork()
  return ended
}

/** Nothing more is begun in a process that was asked to stop. */
async function nextJob(): Promise<ClaimedJob | undefined> {
  let job: ClaimedJob | undefined
  do {
    refused = false
    job = shutdownSignal().aborted ? undefined : await claimJob()
  } while (!job && refused)
  return job
}

/** Comes back for the next try of a job while this instance is still there; where it is not, whoever asks for the job sees to it. */
async function workLater(afterMs: number, until: number): Promise<void> {
  const stays = !env().onVercel
  if (!stays && performance.now() + afterMs >= until) return
  await afterAnswer('job_worker_failed', async () => {
    await pause(afterMs, undefined, { ref: false, signal: shutdownSignal() }).catch(() => {})
    const place = takePlace(stays ? performance.now() + BEGIN_WITHIN_MS : until)
    if (place) await work(place)
  })
}
