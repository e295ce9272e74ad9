// npm run audit -- verify [--head seq:hash] [--json] | head [--json]: whether the audit log is whole, and where it ends.
import { parseArgs } from 'node:util'
import { closeDatabase, db } from '../db/client.ts'
import { auditHead, type Head, parseHead, verifyAudit } from '../lib/audit-chain.ts'

const USAGE = 'usage: npm run audit -- verify [--head seq:hash] [--json] | head [--json]'

const arguments_ = argumentsOf(process.argv.slice(2))
const noted = arguments_?.head === undefined ? undefined : parseHead(arguments_.head)

if (!arguments_ || (arguments_.head !== undefined && !noted)) {
  console.error(USAGE)
  process.exitCode = 2
} else {
  try {
    if (arguments_.command === 'verify') await verify(noted, arguments_.json)
    else await printHead(arguments_.json)
  } finally {
    await closeDatabase()
  }
}

function argumentsOf(args: string[]) {
  try {
    const options = { json: { type: 'boolean', default: false }, head: { type: 'string' } } as const
    const { values, positionals } = parseArgs({ args, options, allowPositionals: true })
    const [command, ...more] = positionals
    if ((command !== 'verify' && command !== 'head') || more.length > 0) return undefined
    return { command, ...values }
  } catch {
    return undefined // An option that there is not.
  }
}

async function verify(head: Head | undefined, json: boolean): Promise<void> {
  const result = await verifyAudit(db(), head)
  if (!result.ok) process.exitCode = 1
  if (json) return console.log(JSON.stringify(result, null, 2))
  console.log(`${result.rows} rows, head ${textOf(result.head)}`)
  for (const { problem, ...where } of result.problems) {
    console.log(
      `  ${problem.padEnd(20)} ${Object.entries(where)
        .map(([name, value]) => `${name} ${value}`)
        .join(', ')}`,
    )
  }
  const { problemsFound, problems } = result
  if (problemsFound > problems.length) console.log(`  … and ${problemsFound - problems.length} more`)
  console.log(result.ok ? 'The audit log is whole.' : `The audit log is BROKEN: ${problemsFound} problem(s).`)
}

async function printHead(json: boolean): Promise<void> {
  const head = await auditHead(db())
  console.log(json ? JSON.stringify(head) : textOf(head))
}

function textOf({ seq, hash }: Head): string {
  return `${seq}:${hash}`
}
