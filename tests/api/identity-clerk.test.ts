// The behaviour of identities, on Clerk: its tokens through the real verification, its API as a loopback stub.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { db } from '../../db/client.ts'
import { type App, call, startApp } from '../support/app.ts'
import { type ClerkStub, givenClerkUser, startClerkStub } from '../support/clerk-stub.ts'
import { identitySuite, type Person } from '../support/identity-suite.ts'
import { allRoutes, examplePath } from '../support/routes.ts'

let app: App
let stub: ClerkStub
const clerkIds = new Map<string, string>()

beforeAll(async () => {
  stub = await startClerkStub()
})
afterAll(() => stub.close())

async function signUp(on: App, name: string): Promise<Person> {
  const user = await givenClerkUser(on, stub, name)
  clerkIds.set(user.id, user.clerkId)
  return user
}

const clerkIdOf = ({ id }: Person) => clerkIds.get(id) ?? ''

describe('Clerk', () => {
  identitySuite({
    start: async () => {
      app = await startApp(stub.variables)
      return app
    },
    signUp,
    signUpAgain: async (on, { email }) => {
      const { id: clerkId } = stub.addUser({ name: 'Ada', email })
      const token = stub.token(clerkId)
      const { json } = await call(on, 'GET /api/user/profile', { token })
      return { id: json.id, email, token }
    },
    signIn: async (_, person) => stub.token(clerkIdOf(person)),
    expiredToken: async (person) => stub.token(clerkIdOf(person), { expiresIn: -6 }),
  })

  test('is told of what an admin did: banned, let in again, deleted', async () => {
    const [root, ada] = [await signUp(app, 'Root'), await signUp(app, 'Ada')]
    await db().updateTable('users').set({ role: 'admin' }).where('id', '=', root.id).execute()
    const act = (what: string, body: object) =>
      call(app, `${what} /api/admin/users/${ada.id}`, { token: root.token, body })
    await act('PATCH', { status: 'suspended', reason: 'abuse' })
    expect(stub.users.get(clerkIdOf(ada))?.banned).toBe(true)
    await act('PATCH', { status: 'active', reason: 'a mistake' })
    expect(stub.users.get(clerkIdOf(ada))?.banned).toBe(false)
    await act('DELETE', { reason: 'asked us to' })
    expect(stub.users.has(clerkIdOf(ada))).toBe(false)
  })
})

describe('whoever acts in the name of a user', () => {
  const own = async () => (await allRoutes()).filter(({ path }) => !path.startsWith('/api/auth/'))

  test('is refused what is for the user alone, and is not an admin through them', async () => {
    const root = await signUp(app, 'Root')
    await db().updateTable('users').set({ role: 'admin' }).where('id', '=', root.id).execute()
    const act = { iss: 'https://dashboard.clerk.com', sid: 'sess_support', sub: 'user_support' }
    const token = stub.token(clerkIdOf(root), { claims: { act } })
    for (const { method, path, route } of await own()) {
      if (!['user', 'spender', 'admin'].includes(route.access)) continue
      const { status, json } = await call(app, `${method} ${examplePath(path)}`, { token })
      const answer = `${status} ${json?.error?.code}`
      if (route.access === 'admin') expect(answer, `${method} ${path}`).toBe('404 NOT_FOUND')
      else if (route.personal) expect(answer, `${method} ${path}`).toBe('403 FORBIDDEN')
      else expect(answer, `${method} ${path}`).not.toMatch(/^(401|403) /)
    }
  })

  test('is named beside the user in the audit log', async () => {
    const ada = await signUp(app, 'Ada')
    const act = { iss: 'https://dashboard.clerk.com', sid: 'sess_support', sub: 'user_support' }
    const token = stub.token(clerkIdOf(ada), { claims: { act } })
    const body = { preferences: { theme: 'dark' } }
    expect((await call(app, 'PUT /api/user/profile', { token, body })).status).toBe(200)
    const rows = await db()
      .selectFrom('audit_log')
      .select(['action', 'actor_id', 'impersonator'])
      .where('target_id', '=', ada.id)
      .where('action', '=', 'user.profile')
      .execute()
    expect(rows).toEqual([{ action: 'user.profile', actor_id: ada.id, impersonator: 'user_support' }])
  })
})
