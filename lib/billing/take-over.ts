// States as Polar's API gave them, taken over each in a transaction of its own.
import type { Transaction } from 'kysely'
import { db } from '../../db/client.ts'
import type { Database } from '../../db/schema.ts'
import { applyDispute, applyOrder, applyRefund } from './orders.ts'
import type { PolarDispute, PolarOrder, PolarRefund, PolarSubscription } from './polar-objects.ts'
import { applySubscription } from './subscriptions.ts'

interface States {
  subscriptions?: PolarSubscription[]
  orders?: PolarOrder[]
  refunds?: PolarRefund[]
  disputes?: PolarDispute[]
}

export async function takeOver({
  subscriptions = [],
  orders = [],
  refunds = [],
  disputes = [],
}: States): Promise<void> {
  for (const state of subscriptions) await committed((trx) => applySubscription(trx, state))
  for (const state of orders) await committed((trx) => applyOrder(trx, state))
  for (const state of refunds) await committed((trx) => applyRefund(trx, state))
  for (const state of disputes) await committed((trx) => applyDispute(trx, state))
}

async function committed(work: (trx: Transaction<Database>) => Promise<void>): Promise<void> {
  await db().transaction().execute(work)
}
