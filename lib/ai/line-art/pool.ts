// Takes the arithmetic of drawings off the event loop: a few worker threads, and a queue in front of them.
//
// Decoding and encoding stay on the main thread, where they are asynchronous already. So the workers load no native
// code, start fast, and can be stopped at any moment.
import { availableParallelism } from 'node:os'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { type Drawing, drawLineArt } from '../line-art.ts'
import { ProviderError } from '../provider.ts'
import type { Photo } from './planes.ts'
import type { StyleName } from './styles.ts'
import { traceLines } from './trace.ts'

interface Task {
  photo: Photo
  styleName: StyleName
}

type Strokes = Uint8Array<ArrayBuffer>

/** Tells this module that the thread it was loaded on is one of its own: a test runner's threads load it too. */
const WORKER_ROLE = 'line-art-worker'

/** Draws as many pictures at a time as there are cores; further ones wait in turn. Idle, it lets the process end. */
export class DrawingPool {
  readonly #drawingsMax: number
  readonly #waitingMax: number
  readonly #script: URL
  readonly #idle = new Set<Worker>()
  readonly #waiting: (() => void)[] = []
  #drawings = 0

  /** `script` is the module the workers run: this one, unless a test brings its own. */
  constructor({ drawingsMax = availableParallelism(), waitingMax = 64, script = new URL(import.meta.url) } = {}) {
    this.#drawingsMax = drawingsMax
    this.#waitingMax = waitingMax
    this.#script = script
  }

  /**
   * Fails with ProviderError: 'timeout' as soon as `signal` aborts, 'overloaded' when too many are waiting, 'network'
   * when the thread died, 'bad_request' for bytes that cannot be drawn. `bytes` must not change meanwhile.
   */
  async draw(bytes: Uint8Array, styleName: StyleName, signal: AbortSignal): Promise<Drawing> {
    await this.#enter(signal)
    const drawing = drawLineArt(bytes, styleName, (photo) => this.#trace({ photo, styleName }, signal))
    // An aborted drawing keeps its place until the native call it is in, which nothing can stop, has returned.
    return await untilAborted(
      drawing.finally(() => this.#leave()),
      signal,
    )
  }

  async #enter(signal: AbortSignal): Promise<void> {
    if (signal.aborted) throw timedOut(signal)
    if (this.#drawings < this.#drawingsMax) {
      this.#drawings++
      return
    }
    if (this.#waiting.length >= this.#waitingMax) {
      throw new ProviderError('overloaded', 'Too many pictures are waiting to be drawn.')
    }
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const enter = () => {
      signal.removeEventListener('abort', giveUp)
      resolve()
    }
    const giveUp = () => {
      this.#waiting.splice(this.#waiting.indexOf(enter), 1)
      reject(timedOut(signal))
    }
    signal.addEventListener('abort', giveUp, { once: true })
    this.#waiting.push(enter)
    await promise
  }

  #leave(): void {
    const enter = this.#waiting.shift()
    if (enter) enter()
    else this.#drawings--
  }

  async #trace(task: Task, signal: AbortSignal): Promise<Strokes> {
    if (signal.aborted) throw timedOut(signal)
    const [worker = this.#start()] = this.#idle
    this.#idle.delete(worker)
    const { promise, resolve, reject } = Promise.withResolvers<Strokes>()
    const exited = (exitCode: number) => reject(new Error(`The worker ended with exit code ${exitCode}.`))
    const stop = () => void worker.terminate()
    worker.once('message', resolve).once('error', reject).once('exit', exited)
    signal.addEventListener('abort', stop, { once: true })
    try {
      worker.ref()
      worker.postMessage(task, [task.photo.rgb.buffer])
      const strokes = await promise
      signal.throwIfAborted()
      this.#idle.add(worker)
      return strokes
    } catch (cause) {
      if (signal.aborted) throw timedOut(signal)
      throw new ProviderError('network', 'The drawing thread stopped unexpectedly.', { cause })
    } finally {
      signal.removeEventListener('abort', stop)
      worker.off('message', resolve).off('error', reject).off('exit', exited)
      worker.unref()
    }
  }

  #start(): Worker {
    // The flags of this process (a loader, --input-type) are not the worker's business.
    const worker = new Worker(this.#script, { workerData: WORKER_ROLE, execArgv: [] })
    worker.once('exit', () => this.#idle.delete(worker))
    return worker
  }
}

/** The outcome of `work`, or ProviderError 'timeout' at once when `signal` aborts first. */
async function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise: aborted, reject } = Promise.withResolvers<never>()
  const abort = () => reject(timedOut(signal))
  if (signal.aborted) abort()
  signal.addEventListener('abort', abort, { once: true })
  return await Promise.race([work, aborted]).finally(() => signal.removeEventListener('abort', abort))
}

function timedOut(signal: AbortSignal): ProviderError {
  return new ProviderError('timeout', 'The drawing was not finished in time.', { cause: signal.reason })
}

if (!isMainThread && workerData === WORKER_ROLE) {
  parentPort?.on('message', ({ photo, styleName }: Task) => {
    const strokes = traceLines(photo, styleName)
    parentPort?.postMessage(strokes, [strokes.buffer])
  })
}
