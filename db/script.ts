// Runs several SQL statements written as one text.
import { type Kysely, sql } from 'kysely'

/** Runs each statement of `text` in order. A statement ends with `;` at a line's end, outside `$$` quotes. */
export async function runScript(db: Kysely<unknown>, text: string): Promise<void> {
  for (const statement of splitStatements(text)) await sql.raw(statement).execute(db)
}

function splitStatements(text: string): string[] {
  const statements: string[] = []
  let current = ''
  let quoted = false
  for (const line of text.split('\n')) {
    current += `${line}\n`
    if (line.split('$$').length % 2 === 0) quoted = !quoted
    if (!quoted && line.endsWith(';')) {
      statements.push(current)
      current = ''
    }
  }
  if (current.trim()) throw new Error(`The script ends within a statement: ${current.trim().slice(0, 80)}`)
  return statements
}
