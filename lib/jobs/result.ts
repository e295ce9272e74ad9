// Where the result of a job is kept: in its row; a picture too large for a reply in Vercel Blob where there is one, else made smaller.
import type { Made, Result } from '../ai/router.ts'
import { blobOn, deleteBlobs, putBlob } from '../blob.ts'
import { fitResult } from '../image.ts'
import { describeError, log } from '../log.ts'
import { failureOfMaker } from '../tools/failure.ts'
import { bytesOf, JSON_RESULT_BYTES_MAX, mediaTypeOf } from '../tools/reply.ts'

/** The result as it is kept: its bytes for the row, or its address in the store. */
export interface StoredResult {
  result: Result
  bytes: Buffer | null
  url: string | null
  /** It had to be made smaller. */
  reencoded: boolean
}

/** Keeps what is too large for a reply outside the row where there is a store, and says what belongs into the row. Throws PROVIDER_ERROR. */
export async function storeResult(jobId: string, made: Made): Promise<StoredResult> {
  const { result } = made
  const bytes = bytesOf(result)
  if ('text' in result || bytes.length <= JSON_RESULT_BYTES_MAX) return { result, bytes, url: null, reencoded: false }
  const url = blobOn() ? await addressInStore(jobId, result) : null
  if (url !== null) return { result, bytes: null, url, reencoded: false }
  const fitted = await fitResult(result, JSON_RESULT_BYTES_MAX).catch((error: unknown) => {
    throw failureOfMaker(error, made)
  })
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
