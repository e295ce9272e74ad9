// What the ledger's SQL functions must answer, said a second time in plain JavaScript: no SQL, one caller, a clock it is told.
import type { LotKind } from '../../db/schema.ts'

type Unit = 'token' | 'generation'
type ClosedState = 'settled' | 'voided' | 'expired'

interface Lot {
  source: string
  kind: LotKind
  unit: Unit
  granted: number
  available: number
  held: number
  spent: number
  gone: number
  /** A plan lot of a period that is over. */
  dormant: boolean
  expiresAtMs: number
}

/** What was taken back of a lot: out of it, out of what had lapsed from it, and what is owed for it. */
interface TakenBack {
  clawed: number
  waived: number
  owed: number
}

interface Hold {
  asked: number
  amount: number
  unit: Unit
  state: 'pending' | ClosedState
  spent: number
  expiresAtMs: number
  parts: { lot: Lot; amount: number }[]
}

const NEVER = Number.POSITIVE_INFINITY
const SPENDING_ORDER: LotKind[] = ['trial', 'plan', 'promo', 'pack']

/** One user's account. Methods are named for the SQL functions and answer with their columns. */
export class LedgerModel {
  nowMs: number
  readonly lots: Lot[] = []
  debt = 0
  readonly #holds = new Map<string, Hold>()
  readonly #takenBack = new Map<Lot, TakenBack>()
  readonly #lapsed = new Map<Lot, number>()
  /** What paid debts, in its order; a forgiven debt takes from its end. */
  readonly #repayments: { lot: Lot; amount: number }[] = []
  readonly #planTokens: number
  readonly #anchorMs: number
  #planLot: Lot

  constructor(nowMs: number, { planTokens, trialGenerations }: { planTokens: number; trialGenerations: number }) {
    this.nowMs = nowMs
    this.#anchorMs = nowMs
    this.#planTokens = planTokens
    this.#planLot = this.#open('plan', planTokens, 'plan:0', this.#monthEnd(0))
    this.#open('trial', trialGenerations, 'trial', NEVER)
  }

  credit(kind: LotKind, amount: number, source: string, expiresAtMs: number | undefined) {
    const before = this.lots.find((lot) => lot.source === source)
    if (before) return { status: before.kind === kind && before.granted === amount ? 'replay' : 'conflict', repaid: 0 }
    this.#open(kind, amount, source, expiresAtMs ?? NEVER)
    return { status: 'ok', repaid: this.#repay() }
  }

  reserve(id: string, tokens: number, ttlMs: number): Record<string, unknown> {
    const before = this.#holds.get(id)
    if (before) {
      const status = before.asked === tokens ? 'replay' : 'conflict'
      return { status, unit: before.unit, held: before.amount, ...this.#balance() }
    }
    this.#beginPeriod()
    const parts = this.#choose(tokens)
    if (parts === undefined) {
      if (this.#releaseOrphans() > 0) return this.reserve(id, tokens, ttlMs)
      return { status: 'insufficient', unit: null, held: null, ...this.#balance() }
    }
    for (const { lot, amount } of parts) {
      lot.available -= amount
      lot.held += amount
    }
    const unit = parts[0]?.lot.unit ?? 'token'
    const amount = unit === 'generation' ? 1 : tokens
    this.#holds.set(id, {
      asked: tokens,
      amount,
      unit,
      state: 'pending',
      spent: 0,
      expiresAtMs: this.nowMs + ttlMs,
      parts,
    })
    return { status: 'ok', unit, held: amount, ...this.#balance() }
  }

  close(id: string, asked: number | null, state: ClosedState) {
    const hold = this.#holds.get(id)
    if (!hold) return { status: 'unknown', unit: null, spent: null, trial_generations: null, tokens: null }
    const whole = hold.unit === 'generation' ? 1 : Math.min(asked ?? hold.amount, hold.amount)
    const spent = state === 'settled' ? whole : 0
    if (hold.state !== 'pending') {
      const status = hold.state === state && hold.spent === spent ? 'replay' : 'conflict'
      return { status, unit: hold.unit, spent: hold.spent, ...this.#balance() }
    }
    hold.state = state
    hold.spent = spent
    let left = spent
    for (const { lot, amount } of hold.parts) {
      const used = Math.min(left, amount)
      lot.held -= amount
      lot.spent += used
      lot.available += amount - used
      left -= used
    }
    if (spent < hold.amount) this.#repay()
    return { status: 'ok', unit: hold.unit, spent, ...this.#balance() }
  }

  takeBack(source: string, asked: number) {
    const lot = this.lots.find((candidate) => candidate.source === source)
    if (!lot) return { status: 'unknown', taken: 0, debt: 0 }
    const target = Math.min(Math.max(asked, 0), lot.granted)
    const before = this.#takenBack.get(lot) ?? { clawed: 0, waived: 0, owed: 0 }
    const due = target - before.clawed - before.waived - before.owed
    this.#takenBack.set(lot, due < 0 ? this.#giveBack(lot, before, -due) : this.#takeMore(lot, before, due))
    if (due !== 0) this.#repay()
    return { status: 'ok', taken: target, debt: this.debt }
  }

  #takeMore(lot: Lot, { clawed, waived, owed }: TakenBack, due: number): TakenBack {
    const left = Math.min(due, lot.available)
    const lapsed = Math.min(due - left, (this.#lapsed.get(lot) ?? 0) - waived)
    const used = due - left - lapsed
    lot.available -= left
    lot.gone += left
    this.debt += used
    return { clawed: clawed + left, waived: waived + lapsed, owed: owed + used }
  }

  #giveBack(lot: Lot, { clawed, waived, owed }: TakenBack, due: number): TakenBack {
    const used = Math.min(due, owed)
    const lapsed = Math.min(due - used, waived)
    const left = due - used - lapsed
    this.debt -= used
    while (this.debt < 0) {
      const last = this.#repayments.at(-1)
      if (!last) throw new Error('More debt was forgiven than there ever was.')
      const amount = Math.min(-this.debt, last.amount)
      last.amount -= amount
      last.lot.available += amount
      last.lot.gone -= amount
      this.debt += amount
      if (last.amount === 0) this.#repayments.pop()
    }
    lot.available += left
    lot.gone -= left
    return { clawed: clawed - left, waived: waived - lapsed, owed: owed - used }
  }

  sweep(): void {
    const orphans = [...this.#holds].filter(([, hold]) => this.#isOrphan(hold))
    for (const [id] of orphans.sort(([, a], [, b]) => a.expiresAtMs - b.expiresAtMs)) this.close(id, 0, 'expired')
    for (const lot of this.lots) this.#lapse(lot)
  }

  status() {
    this.#beginPeriod()
    this.#releaseOrphans()
    const live = this.lots.filter((lot) => this.#isLive(lot))
    const sum = (lots: Lot[], part: 'available' | 'held') => lots.reduce((total, lot) => total + lot[part], 0)
    return {
      plan: 'free',
      status: 'active',
      expires_at: null,
      token_limit: this.#planLot.granted,
      tokens_used: this.#planLot.spent,
      period_end: new Date(this.#planLot.expiresAtMs),
      plan_tokens: sum(
        live.filter(({ kind }) => kind === 'plan'),
        'available',
      ),
      purchased_tokens: sum(
        live.filter(({ kind }) => kind === 'promo' || kind === 'pack'),
        'available',
      ),
      reserved_tokens: sum(
        this.lots.filter(({ unit }) => unit === 'token'),
        'held',
      ),
      debt: this.debt,
      ...this.#balance(),
    }
  }

  #open(kind: LotKind, amount: number, source: string, expiresAtMs: number): Lot {
    const unit = kind === 'trial' ? 'generation' : 'token'
    const lot = {
      source,
      kind,
      unit,
      granted: amount,
      available: amount,
      held: 0,
      spent: 0,
      gone: 0,
      dormant: false,
      expiresAtMs,
    } as const
    const opened: Lot = { ...lot }
    this.lots.push(opened)
    return opened
  }

  #balance() {
    const live = this.lots.filter((lot) => this.#isLive(lot))
    const sum = (unit: Unit) => live.reduce((total, lot) => total + (lot.unit === unit ? lot.available : 0), 0)
    return { trial_generations: sum('generation'), tokens: Math.max(0, sum('token') - this.debt) }
  }

  /** What a price is taken from: one trial generation while nothing is owed, else tokens in spending order. */
  #choose(tokens: number): Hold['parts'] | undefined {
    const live = this.#inSpendingOrder().filter((lot) => this.#isLive(lot) && lot.available > 0)
    const trial = live.find(({ unit }) => unit === 'generation')
    if (trial && this.debt === 0) return [{ lot: trial, amount: 1 }]
    const lots = live.filter(({ unit }) => unit === 'token')
    if (lots.reduce((total, lot) => total + lot.available, -this.debt) < tokens) return undefined
    let need = tokens
    return lots.flatMap((lot) => {
      const amount = Math.min(need, lot.available)
      need -= amount
      return amount > 0 ? [{ lot, amount }] : []
    })
  }

  #repay(): number {
    let repaid = 0
    for (const lot of this.#inSpendingOrder().reverse()) {
      if ((lot.kind !== 'pack' && lot.kind !== 'promo') || !this.#isLive(lot)) continue
      const amount = Math.min(this.debt, lot.available)
      if (amount === 0) continue
      this.#repayments.push({ lot, amount })
      lot.available -= amount
      lot.gone += amount
      this.debt -= amount
      repaid += amount
    }
    return repaid
  }

  #beginPeriod(): void {
    if (this.#planLot.expiresAtMs > this.nowMs) return
    let months = 0
    while (this.#monthEnd(months) <= this.nowMs) months += 1
    this.#lapse(this.#planLot)
    this.#planLot.dormant = true
    this.#planLot = this.#open('plan', this.#planTokens, `plan:${months}`, this.#monthEnd(months))
    this.#repay()
  }

  /** When the period that began `months` after the anchor ends; the anchor's day exists in every month. */
  #monthEnd(months: number): number {
    const end = new Date(this.#anchorMs)
    return end.setUTCMonth(end.getUTCMonth() + months + 1)
  }

  #releaseOrphans(): number {
    const orphans = [...this.#holds].filter(([, hold]) => this.#isOrphan(hold))
    for (const [id] of orphans) this.close(id, 0, 'expired')
    return orphans.length
  }

  #lapse(lot: Lot): void {
    if (lot.expiresAtMs > this.nowMs) return
    this.#lapsed.set(lot, (this.#lapsed.get(lot) ?? 0) + lot.available)
    lot.gone += lot.available
    lot.available = 0
  }

  #inSpendingOrder(): Lot[] {
    const rank = ({ kind }: Lot) => SPENDING_ORDER.indexOf(kind)
    // Two lots that never expire: infinity minus infinity is not a number.
    const soonest = (a: Lot, b: Lot) => (a.expiresAtMs === b.expiresAtMs ? 0 : a.expiresAtMs - b.expiresAtMs)
    return [...this.lots].sort((a, b) => rank(a) - rank(b) || soonest(a, b))
  }

  #isLive(lot: Lot): boolean {
    return lot.expiresAtMs > this.nowMs && !lot.dormant
  }

  #isOrphan(hold: Hold): boolean {
    return hold.state === 'pending' && hold.expiresAtMs < this.nowMs
  }
}
