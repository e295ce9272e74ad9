// The store of large pictures as the real Vercel Blob has it: its addresses, and the form of a client's token.
import { createHmac } from 'node:crypto'
import { beforeAll, describe, expect, test } from 'vitest'
import { blobOn, fetchUpload, permitUpload } from '../../lib/blob.ts'

const TOKEN = 'vercel_blob_rw_TestStore_0123456789abcdef'
/** Made by @vercel/blob 2.8.0 with this token for the terms below. */
const RECORDED =
  'vercel_blob_client_TestStore_NzkzZjdiYmZhMmFjNGQ0ZGQxNjI4YTQ2YzU0NTY1ZWUwNWU3ZTZiYTkwODg4NTA5MTc5NjFkZjc4NGE2NjJiZS5leUp3WVhSb2JtRnRaU0k2SW5Wd2JHOWhaSE12ZFM5NExuQnVaeUlzSW1Gc2JHOTNaV1JEYjI1MFpXNTBWSGx3WlhNaU9sc2lhVzFoWjJVdmNHNW5JbDBzSW0xaGVHbHRkVzFUYVhwbFNXNUNlWFJsY3lJNk5Td2lkbUZzYVdSVmJuUnBiQ0k2TVRJek5EVTJOemc1TURFeU15d2lZV1JrVW1GdVpHOXRVM1ZtWm1sNElqcG1ZV3h6WlN3aVlXeHNiM2RQZG1WeWQzSnBkR1VpT21aaGJITmxMQ0pqWVdOb1pVTnZiblJ5YjJ4TllYaEJaMlVpT2pZd2ZRPT0='
const TERMS = {
  pathname: 'uploads/u/x.png',
  allowedContentTypes: ['image/png'],
  maximumSizeInBytes: 5,
  validUntil: 1234567890123,
  addRandomSuffix: false,
  allowOverwrite: false,
  cacheControlMaxAge: 60,
}

beforeAll(() => {
  process.env.BLOB_READ_WRITE_TOKEN = TOKEN
})

/** What stands in a client token: whose store, and what was signed. */
function opened(token: string) {
  const [, , , storeId, encoded = ''] = token.split('_')
  const [signature, payload = ''] = Buffer.from(encoded, 'base64').toString().split('.')
  const isSigned = createHmac('sha256', TOKEN).update(payload).digest('hex') === signature
  return { storeId, isSigned, terms: JSON.parse(Buffer.from(payload, 'base64').toString()) }
}

describe('a permit for an upload', () => {
  const permit = () => permitUpload('u', { contentType: 'image/png', bytes: 5 })

  test('has a token of the form that the SDK makes', () => {
    const { headers, imageUrl, expiresAt } = permit()
    const ours = opened(headers.authorization?.replace('Bearer ', '') ?? '')
    expect(opened(RECORDED)).toEqual({ storeId: 'TestStore', isSigned: true, terms: TERMS })
    expect(ours).toEqual({
      storeId: 'TestStore',
      isSigned: true,
      terms: { ...TERMS, pathname: new URL(imageUrl).pathname.slice(1), validUntil: Date.parse(expiresAt) },
    })
    expect(Object.keys(ours.terms).sort()).toEqual(Object.keys(TERMS).sort())
  })

  test('leads to the API of Vercel, and to a file on the host of the store', () => {
    const { uploadUrl, method, headers, imageUrl } = permit()
    const { origin, pathname, searchParams } = new URL(uploadUrl)
    expect([method, origin + pathname]).toEqual(['PUT', 'https://vercel.com/api/blob/'])
    expect(imageUrl).toBe(`https://teststore.public.blob.vercel-storage.com/${searchParams.get('pathname')}`)
    expect(headers).toMatchObject({
      'x-api-version': '12',
      'x-vercel-blob-store-id': 'TestStore',
      'x-vercel-blob-access': 'public',
      'x-content-type': 'image/png',
    })
  })

  test('never gives one name twice', () => {
    expect(new Set(Array.from({ length: 100 }, () => permit().imageUrl)).size).toBe(100)
  })
})

test.each([
  'https://otherstore.public.blob.vercel-storage.com/uploads/u/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.png',
  'https://teststore.public.blob.vercel-storage.com.example.com/uploads/u/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.png',
  'https://teststore.public.blob.vercel-storage.com:8443/uploads/u/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.png',
  'http://teststore.public.blob.vercel-storage.com/uploads/u/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.png',
  'https://teststore.public.blob.vercel-storage.com/uploads/v/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.png',
  'https://teststore.public.blob.vercel-storage.com/uploads/u/a.png',
])('%s is no upload of this user', async (imageUrl) => {
  await expect(fetchUpload(imageUrl, 'u', 1000)).rejects.toMatchObject({ code: 'VALIDATION_FAILED' })
})

test('there is a store where its token is set', () => {
  expect(blobOn()).toBe(true)
})
