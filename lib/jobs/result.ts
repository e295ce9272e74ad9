// Where the result of a job is kept: in Vercel Blob where there is one, else in the row, made smaller when it is too large for it.
import type { Result } from '../ai/router.ts'
import { blobOn, deleteBlobs, putBlob } from '../blob.ts'
import { fitResult } from '../image.ts'
import { describeError, log } from '../log.ts'
import { bytesOf, mediaTypeOf } from '../tools/reply.ts'

/** A reply of JSON with this in base64 is still within Vercel's 4.5 MB. */
const ROW_BYTES_MAX = 3_200_000

/** The result as it is kept: its bytes for the row, or its address in the store. */
export interface StoredResult {
  result: Result
  bytes: Buffer | null
  url: string | null
  /** It had to be made smaller. */
  reencoded: boolean
}

/** Keeps the result outside the row where there is a store, and says what belongs into the row. A result is never lost for its size. */
export async function storeResult(jobId: string, result: Result): Promise<StoredResult> {
  const url = blobOn() ? await addressInStore(jobId, result) : null
  if (url !== null) return { result, bytes: null, url, reencoded: false }
  const bytes = bytesOf(result)
  if ('text' in result || bytes.length <= ROW_BYTES_MAX) return { result, bytes, url, reencoded: false }
  const fitted = await fitResult(result, ROW_BYTES_MAX)
  return { result: fitted, bytes: fitted.bytes, url, reencoded: true }
}

/** Takes back out of the store what no job came to have. Never throws. */
export async function forgetResult({ url }: StoredResult): Promise<void> {
  if (url === null) return
  await deleteBlobs([url]).catch((error: unknown) =>
    log('warn', 'job_result_not_deleted', { error: describeError(error) }),
  )
}

/** Null when the store does not take it: then the row does. */
async function addressInStore(jobId: string, result: Result): Promise<string | null> {
  try {
    return await putBlob(`jobs/${jobId}`, bytesOf(result), mediaTypeOf(result))
  } catch (error) {
    log('warn', 'job_result_not_in_store', { job: jobId, error: describeError(error) })
    return null
  }
}
