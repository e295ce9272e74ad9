// The process behind startServer(): serves in the role its argument names, and answers 'usage' over IPC.
import { Agent, createServer, request as forward } from 'node:http'
import { serve } from 'srvx'
import { startGeminiStub } from '../tests/support/gemini-stub.ts'
import { startProviderStub } from '../tests/support/provider-stub.ts'
import { startUpstashRest } from '../tests/support/upstash-rest.ts'
import type { Role, Usage } from './servers.ts'
import { REDIS_URL } from './stores.ts'
import { measureWaits } from './waits.ts'

interface Running {
  url: string
  counts?: () => Partial<Usage>
}

const ROLES: Record<Role, () => Promise<Running>> = {
  /** The function as it is, behind the smallest HTTP server that speaks Request and Response. */
  async product() {
    const { KV_REST_API_URL: kv, GEMINI_BASE_URL: provider } = process.env
    const waits = measureWaits({ kv, provider })
    const { default: api } = await import('../api/process-image.ts')
    const server = serve({ port: 0, hostname: '127.0.0.1', fetch: api.fetch, silent: true, gracefulShutdown: false })
    await server.ready()
    return { url: server.url ?? '', counts: waits }
  },

  /** The least that any gateway must do: both bodies through, untouched. */
  async proxy() {
    const { UPSTREAM_URL: upstream = '' } = process.env
    const agent = new Agent({ keepAlive: true })
    const server = createServer((incoming, outgoing) => {
      const { 'content-type': type, 'content-length': length } = incoming.headers
      const headers = { 'content-type': type, 'content-length': length, 'x-goog-api-key': 'bench' }
      const onward = forward(upstream, { method: 'POST', agent, headers }, (reply) => {
        outgoing.writeHead(reply.statusCode ?? 502, reply.headers)
        reply.pipe(outgoing)
      })
      onward.on('error', () => outgoing.destroy())
      incoming.pipe(onward)
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const address = server.address()
    return { url: `http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}` }
  },

  async gemini() {
    const stub = await startGeminiStub({ sidePx: Number(process.env.STUB_SIDE_PX ?? 1024), lean: true })
    return { url: stub.url }
  },

  async openai() {
    const stub = await startProviderStub('openai')
    return { url: stub.url }
  },

  async kv() {
    const { KV_REST_API_TOKEN: token = '' } = process.env
    const server = await startUpstashRest({ token, redisUrl: REDIS_URL, keyPrefix: `bench:${token}:` })
    return { url: server.url, counts: () => ({ kvRequests: server.requests() }) }
  },
}

const isRole = (name: string | undefined): name is Role => name !== undefined && name in ROLES
const role = process.argv[2]
if (!isRole(role)) throw new Error(`No such role: ${role}.`)
const { url, counts } = await ROLES[role]()
process.on('message', () => {
  const { user, system } = process.cpuUsage()
  const memoryMb = Math.round(process.memoryUsage.rss() / 1e6)
  const none = { sqlQueries: 0, databaseMs: 0, kvMs: 0, providerMs: 0, kvRequests: 0 }
  process.send?.({ cpuMs: (user + system) / 1000, memoryMb, ...none, ...counts?.() })
})
process.on('disconnect', () => process.exit())
process.send?.({ url })
