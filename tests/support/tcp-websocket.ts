// Lets @vercel/postgres, which speaks WebSocket to Neon's proxy, talk to any PostgreSQL over plain TCP.
import { connect, type Socket } from 'node:net'
import { VercelClient } from '@vercel/postgres'

/**
 * From now on every @vercel/postgres connection of this process goes over TCP to the server of `postgresUrl`, whatever
 * host its own connection string names: a Neon-looking one can be tested against a local server.
 */
export function useTcp(postgresUrl: string): void {
  const { hostname, port } = new URL(postgresUrl)
  // The driver's settings are static on the class of a client's `neonConfig`; the package does not re-export it.
  const settings = new VercelClient({ connectionString: postgresUrl }).neonConfig.constructor
  Object.assign(settings, {
    webSocketConstructor: TcpWebSocket,
    wsProxy: () => `${hostname}:${port || 5432}`,
    useSecureWebSocket: false,
    pipelineTLS: false,
    pipelineConnect: false, // It would send a cleartext password before the server asks for any.
  })
}

/** As much of a WebSocket as the driver uses, with the bytes of a TCP socket as its messages. */
class TcpWebSocket extends EventTarget {
  readonly #socket: Socket

  constructor(url: string) {
    super()
    const { hostname, port } = new URL(url)
    this.#socket = connect(Number(port || 80), hostname).setNoDelay(true)
    this.#socket.on('connect', () => this.dispatchEvent(new Event('open')))
    this.#socket.on('data', (bytes) => {
      this.dispatchEvent(new MessageEvent('message', { data: new Uint8Array(bytes).buffer }))
    })
    this.#socket.on('error', (error) => {
      this.dispatchEvent(Object.assign(new Event('error'), { error, message: error.message }))
    })
    this.#socket.on('close', () => this.dispatchEvent(new Event('close')))
  }

  send(bytes: Uint8Array) {
    this.#socket.write(new Uint8Array(bytes)) // A copy: the driver goes on writing into its buffer.
  }

  close() {
    this.#socket.end()
  }
}
