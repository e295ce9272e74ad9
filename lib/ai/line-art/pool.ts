// Draws on worker threads, so that a second of arithmetic never holds up the event loop that serves everyone else.
import { availableParallelism } from 'node:os'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { type Drawing, drawLineArt } from '../line-art.ts'
import { ProviderError, type ProviderErrorKind } from '../provider.ts'
import type { StyleName } from './styles.ts'

interface Task {
  bytes: Uint8Array<ArrayBuffer>
  style: StyleName
}

/** Errors lose their class on the way between threads, so the kind travels beside the message. */
type Answer = { drawing: Drawing } | { failure: { kind: ProviderErrorKind; message: string; cause: unknown } }

interface Job {
  bytes: Uint8Array
  style: StyleName
  resolve(drawing: Drawing): void
  reject(error: ProviderError): void
}

/** Tells this module that the thread it was loaded on is one of its own: a test runner's threads load it too. */
const WORKER_ROLE = 'line-art-pool'

/** Worker threads started when needed, with a queue before them. An idle pool does not keep the process alive. */
export class DrawingPool {
  readonly #workersMax: number
  readonly #queueMax: number
  readonly #script: URL
  readonly #idle: Worker[] = []
  readonly #running = new Map<Worker, Job>()
  readonly #queue: Job[] = []
  /** Includes those that are still stopping: their last native call may be using a core. */
  #workers = 0

  /** `script` is the module the workers run; this one, unless a test brings its own. */
  constructor({ workersMax = availableParallelism(), queueMax = 64, script = new URL(import.meta.url) } = {}) {
    this.#workersMax = workersMax
    this.#queueMax = queueMax
    this.#script = script
  }

  /**
   * Fails only with ProviderError: 'timeout' as soon as `signal` aborts, 'overloaded' when the queue is full, 'network'
   * when the thread died, 'bad_request' for bytes that cannot be drawn. `bytes` must not change meanwhile.
   */
  async draw(bytes: Uint8Array, style: StyleName, signal: AbortSignal): Promise<Drawing> {
    // On glibc the native library has to be loaded here before the first worker loads it, or it is unloaded under the
    // feet of its own threads when that worker ends: https://sharp.pixelplumbing.com/install#worker-threads
    await import('sharp')
    if (signal.aborted) throw stopped(signal)
    if (this.#queue.length >= this.#queueMax) {
      throw new ProviderError('overloaded', 'Too many pictures are waiting to be drawn.')
    }
    const { promise, resolve, reject } = Promise.withResolvers<Drawing>()
    const job: Job = { bytes, style, resolve, reject }
    const abort = () => this.#cancel(job, stopped(signal))
    signal.addEventListener('abort', abort, { once: true })
    this.#queue.push(job)
    this.#dispatch()
    return await promise.finally(() => signal.removeEventListener('abort', abort))
  }

  #dispatch(): void {
    while (this.#queue.length > 0) {
      const worker = this.#idle.pop() ?? (this.#workers < this.#workersMax ? this.#start() : undefined)
      const job = worker && this.#queue.shift()
      if (!job) return
      // The caller keeps its bytes (another provider may need them), so one exact copy is made and handed over.
      const task: Task = { bytes: new Uint8Array(job.bytes), style: job.style }
      this.#running.set(worker, job)
      worker.ref()
      worker.postMessage(task, [task.bytes.buffer])
    }
  }

  #start(): Worker {
    // The flags of this process (a loader, --input-type) are not the worker's business.
    const worker = new Worker(this.#script, { workerData: WORKER_ROLE, execArgv: [] })
    this.#workers++
    worker.on('message', (answer: Answer) => {
      const job = this.#release(worker)
      worker.unref()
      this.#idle.push(worker)
      if ('drawing' in answer) job?.resolve(answer.drawing)
      else job?.reject(new ProviderError(answer.failure.kind, answer.failure.message, { cause: answer.failure.cause }))
      this.#dispatch()
    })
    worker.on('error', (cause) => this.#release(worker)?.reject(crashed(cause)))
    worker.on('exit', (exitCode) => {
      this.#workers--
      this.#release(worker)?.reject(crashed(new Error(`The worker ended with exit code ${exitCode}.`)))
      const idleAt = this.#idle.indexOf(worker)
      if (idleAt >= 0) this.#idle.splice(idleAt, 1)
      this.#dispatch()
    })
    return worker
  }

  #release(worker: Worker): Job | undefined {
    const job = this.#running.get(worker)
    this.#running.delete(worker)
    return job
  }

  #cancel(job: Job, error: ProviderError): void {
    const waitingAt = this.#queue.indexOf(job)
    if (waitingAt >= 0) this.#queue.splice(waitingAt, 1)
    for (const [worker, current] of this.#running) {
      if (current !== job) continue
      this.#release(worker)
      worker.unref()
      void worker.terminate()
    }
    job.reject(error)
  }
}

function stopped(signal: AbortSignal): ProviderError {
  return new ProviderError('timeout', 'The drawing was not finished in time.', { cause: signal.reason })
}

function crashed(cause: unknown): ProviderError {
  return new ProviderError('network', 'The drawing thread stopped unexpectedly.', { cause })
}

if (!isMainThread && workerData === WORKER_ROLE) {
  parentPort?.on('message', async (task: Task) => {
    const answer = await answerTo(task)
    parentPort?.postMessage(answer, 'drawing' in answer ? [answer.drawing.png.buffer] : [])
  })
}

async function answerTo({ bytes, style }: Task): Promise<Answer> {
  try {
    return { drawing: await drawLineArt(bytes, style) }
  } catch (error) {
    if (error instanceof ProviderError) {
      return { failure: { kind: error.kind, message: error.message, cause: error.cause } }
    }
    return { failure: { kind: 'network', message: 'The drawing failed.', cause: error } }
  }
}
