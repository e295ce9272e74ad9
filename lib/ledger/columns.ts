// What the ledger's functions take and answer, in the shapes that its callers see.
import { config } from '../config.ts'

/** What a user can spend now. */
export interface Balance {
  trialGenerations: number
  tokens: number
}

export interface BalanceColumns {
  trial_generations: number
  tokens: number
}

/** What a user can spend, as every function of the ledger answers it. */
export function balanceOf({ trial_generations, tokens }: BalanceColumns): Balance {
  return { trialGenerations: trial_generations, tokens }
}

/** The one row that a function answers with. */
export function only<T>(rows: T[]): T {
  const [row] = rows
  if (row === undefined) throw new Error('The ledger answered nothing.')
  return row
}

/** Plan → tokens per period, as the SQL functions take it. */
export function allowances(): string {
  const plans = Object.entries(config().plans)
  return JSON.stringify(Object.fromEntries(plans.map(([name, { monthlyTokens }]) => [name, monthlyTokens])))
}
