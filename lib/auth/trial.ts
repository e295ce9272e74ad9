// Who gets the free trial: every person once, at an address that lasts, and only so many of one network in a day.
import { createHmac } from 'node:crypto'
import { BlockList, isIP } from 'node:net'
import { sql, type Transaction } from 'kysely'
import type { Database, TrialWithheld } from '../../db/schema.ts'
import { config, type ForkConfig } from '../config.ts'
import { type Env, env } from '../env.ts'
import { trialSource } from '../ledger/ledger.ts'
import { keyFor } from './secret.ts'

interface Candidate {
  /** In lower case. */
  email: string
  emailVerified: boolean
  /** As `networkHash` gives it; null where nothing is known of the network. */
  network: string | null
}

/** Addresses that many unrelated people have, or that the machine itself has. Apart, as IPv4 counts as a part of ::/64. */
const PRIVATE_IPV4 = subnets('ipv4', [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.168.0.0', 16],
])
const PRIVATE_IPV6 = subnets('ipv6', [
  ['::', 64],
  ['fc00::', 7],
  ['fe80::', 10],
])

let disposableDomains: Promise<Set<string>> | undefined

/**
 * Why a person gets no trial, or null. Null counts one trial for the network: give it in the same transaction. Until that
 * one ends, whoever asks for the same person or the same network waits, so that no race gets past it.
 */
export async function whyWithheld(
  trx: Transaction<Database>,
  { email, emailVerified, network }: Candidate,
): Promise<TrialWithheld | null> {
  if (config().trial.generations === 0) return null
  if (await isDisposable(email)) return 'disposable'
  if (!emailVerified && canVerify(env(), config())) return 'unverified'
  if (await hadTrial(trx, personOf(email))) return 'repeat'
  if (network !== null && !(await countTrial(trx, network))) return 'network'
  return null
}

/** Whether somebody can show that an address is theirs: to Clerk, or by a mail that really arrives. */
export function canVerify({ resend }: Pick<Env, 'resend'>, { auth }: Pick<ForkConfig, 'auth'>): boolean {
  return auth.provider === 'clerk' || resend !== undefined
}

/** One person, whichever spelling of the address: a keyed hash, so that the ledger keeps no e-mail. */
export function personOf(email: string): string {
  const [local = '', domain = ''] = email.toLowerCase().split('@')
  const withoutTag = local.split('+', 1)[0] ?? local
  const gmail = domain === 'gmail.com' || domain === 'googlemail.com'
  const normalised = gmail ? `${withoutTag.replaceAll('.', '')}@gmail.com` : `${withoutTag}@${domain}`
  return createHmac('sha256', keyFor('trial')).update(normalised).digest('base64url')
}

/** A keyed hash of the /24 or /64 that a client address, as clientIp gives it, is in; null for one that says nothing. */
export function networkHash(ip: string): string | null {
  const network = networkOf(ip)
  return network === null ? null : createHmac('sha256', keyFor('network')).update(network).digest('base64url')
}

function networkOf(ip: string): string | null {
  const [address = '', suffix] = ip.split('/')
  switch (isIP(address)) {
    case 4:
      return PRIVATE_IPV4.check(address, 'ipv4') ? null : `${address.split('.', 3).join('.')}.0/24`
    case 6:
      return suffix !== '64' || PRIVATE_IPV6.check(address, 'ipv6') ? null : ip
    default:
      return null
  }
}

function subnets(family: 'ipv4' | 'ipv6', list: [address: string, bits: number][]): BlockList {
  const found = new BlockList()
  for (const [address, bits] of list) found.addSubnet(address, bits, family)
  return found
}

/** Whether the domain, or one that it is part of, gives addresses to throw away. */
async function isDisposable(email: string): Promise<boolean> {
  disposableDomains ??= import('disposable-email-domains-js').then((list) => list.disposableEmailBlocklistSet())
  const domains = await disposableDomains
  const labels = (email.split('@')[1] ?? '').split('.')
  return labels.some((_, index) => domains.has(labels.slice(index).join('.')))
}

/** Looks behind a lock of the person's own, so that of two at the same time the second sees what the first one got. */
async function hadTrial(trx: Transaction<Database>, person: string): Promise<boolean> {
  const source = trialSource(person)
  await sql`select pg_advisory_xact_lock(hashtextextended(${source}, 0))`.execute(trx)
  const lot = await trx.selectFrom('ledger_lot').select('id').where('source', '=', source).executeTakeFirst()
  return lot !== undefined
}

/** False when the network had its trials of the day, by UTC. */
async function countTrial(trx: Transaction<Database>, network: string): Promise<boolean> {
  const { perNetworkDaily } = config().trial
  if (perNetworkDaily === 0) return true
  const { rows } = await sql`
    insert into trial_networks as kept (network, day, trials) values (${network}, (now() at time zone 'utc')::date, 1)
      on conflict (network, day) do update set trials = kept.trials + 1 where kept.trials < ${perNetworkDaily}
      returning 1
  `.execute(trx)
  return rows.length > 0
}
