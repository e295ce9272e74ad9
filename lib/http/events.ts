// Server-sent events: progress while a handler works, then its answer.
import { describeError, log } from '../log.ts'

const HEARTBEAT_MS = 10_000

export type Emit = (event: string, data: unknown) => void

/** What a handler returns to report progress: `run` emits events, and resolves to the answer that closes the stream. */
export class Events {
  readonly run: (emit: Emit) => Promise<Response>

  constructor(run: (emit: Emit) => Promise<Response>) {
    this.run = run
  }
}

/**
 * Streams a run. `finish` receives its outcome and gives the reply whose JSON body becomes the last event, `done`
 * or `error`. The run goes on when the client leaves, so that what was begun is settled; `completion` is its end.
 */
export function streamEvents(events: Events, finish: (outcome: Promise<Response>) => Promise<Response>) {
  let controller: ReadableStreamDefaultController<Uint8Array> | undefined
  const encoder = new TextEncoder()
  const write = (text: string) => controller?.enqueue(encoder.encode(text))
  const heartbeat = setInterval(() => write(': working\n\n'), HEARTBEAT_MS)
  const stream = new ReadableStream<Uint8Array>({
    start(opened) {
      controller = opened
    },
    cancel() {
      controller = undefined
    },
  })

  const work = async () => {
    const outcome = events.run((event, data) => write(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`))
    const reply = await finish(outcome)
    write(`event: ${reply.ok ? 'done' : 'error'}\ndata: `)
    controller?.enqueue(new Uint8Array(await reply.arrayBuffer()))
    write('\n\n')
    controller?.close()
  }
  const completion = work()
    .catch((error) => {
      log('error', 'event_stream_failed', { error: describeError(error) })
      controller?.error(error)
    })
    .finally(() => clearInterval(heartbeat))

  const headers = {
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-store',
    'x-accel-buffering': 'no',
  }
  return { response: new Response(stream, { headers }), completion }
}
