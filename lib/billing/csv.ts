// Tables as CSV (RFC 4180) that a spreadsheet opens without running anything in it.

type Cell = string | number | boolean | null | undefined

/** Header row first; lines end with CRLF. A text that a spreadsheet would take for a formula is led by an apostrophe. */
export function toCsv(columns: readonly string[], rows: Iterable<Readonly<Record<string, Cell>>>): string {
  const lines = [columns.map(textOf).join(',')]
  for (const row of rows) lines.push(columns.map((column) => textOf(row[column])).join(','))
  return `${lines.join('\r\n')}\r\n`
}

function textOf(cell: Cell): string {
  if (typeof cell !== 'string') return String(cell ?? '')
  const text = /^[=+\-@\t\r\n]/.test(cell) ? `'${cell}` : cell
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
}
