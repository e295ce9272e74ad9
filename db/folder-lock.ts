// One process per embedded database: two would corrupt its files.
import { readFileSync, rmSync, writeFileSync } from 'node:fs'

/** Another process has the folder; its message says which. */
export class FolderInUseError extends Error {
  override readonly name = 'FolderInUseError'
}

/** Takes the folder for this process until it exits. Throws FolderInUseError when another living process has it. */
export function lockFolder(folder: string): void {
  const file = `${folder}.lock`
  const owner = ownerOf(file)
  if (owner !== undefined && owner !== process.pid && isAlive(owner)) {
    throw new Error(
      `The embedded database in ${folder} is in use by process ${owner}. Stop it, or set another DATA_DIR.`,
    )
  }
  writeFileSync(file, String(process.pid))
  process.once('exit', () => rmSync(file, { force: true }))
}

function ownerOf(file: string): number | undefined {
  try {
    return Number(readFileSync(file, 'utf8'))
  } catch {
    return undefined
  }
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}
