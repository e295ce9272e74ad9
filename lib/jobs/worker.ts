// Who works on jobs: a few workers per instance, started after an answer or by the sweep, each taking one due job after the other.
import { setTimeout as pause } from 'node:timers/promises'
import { afterAnswer } from '../after-answer.ts'
import { describeError, log } from '../log.ts'
import { claimJob } from './claim.ts'
import { runJob } from './run.ts'

/** Pictures are held in memory while they are worked on. */
const WORKERS_MAX = 4
/** No job is begun after that, so that it ends before the function does. */
const BEGIN_WITHIN_MS = 120_000

let workers = 0

/** Starts a worker that the answer does not wait for, unless enough are at work here: they take what is due next. */
export async function startWork(): Promise<void> {
  if (workers >= WORKERS_MAX) return
  await afterAnswer('job_worker_failed', async () => {
    await work(performance.now() + BEGIN_WITHIN_MS)
  })
}

/** Works on everything that is due, and begins no job after `beginWithinMs`; returns how many ended. */
export async function workDue(beginWithinMs: number): Promise<number> {
  const until = performance.now() + beginWithinMs
  const ended = await Promise.all(Array.from({ length: Math.max(1, WORKERS_MAX - workers) }, () => work(until)))
  return ended.reduce((sum, count) => sum + count, 0)
}

/** One worker, until nothing is due or it is `until`; returns how many jobs ended. Never throws. */
async function work(until: number): Promise<number> {
  let ended = 0
  workers += 1
  try {
    for (let job = await claimJob(); job; job = performance.now() < until ? await claimJob() : undefined) {
      const ending = await runJob(job)
      if (ending.kind === 'retry') await workLater(ending.afterMs, until)
      else if (ending.kind !== 'lost') ended += 1
    }
  } catch (error) {
    // What was claimed is claimed again when its lease has run out.
    log('warn', 'job_worker_stopped', { error: describeError(error) })
  } finally {
    workers -= 1
  }
  return ended
}

/** Comes back for the next try of a job while this instance is still there; where it is not, whoever asks for the job sees to it. */
async function workLater(afterMs: number, until: number): Promise<void> {
  if (performance.now() + afterMs >= until) return
  await afterAnswer('job_worker_failed', async () => {
    await pause(afterMs, undefined, { ref: false })
    await work(until)
  })
}
