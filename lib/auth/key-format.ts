// The form of an API key: <tag>_<8 public characters>_<32 secret ones><6 of checksum>, letters and digits alone.
import { createHash, randomBytes } from 'node:crypto'
import { crc32 } from 'node:zlib'

const ALPHABET = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
const PREFIX_CHARACTERS = 8
const SECRET_CHARACTERS = 32
const CHECKSUM_CHARACTERS = 6
const FORM = /^[a-z][a-z0-9]{1,9}_[0-9A-Za-z]{8}_[0-9A-Za-z]{38}$/
/** The bytes that fall evenly on the alphabet: the others are drawn again. */
const EVEN_BYTES = 256 - (256 % ALPHABET.length)

interface NewKey {
  /** Never kept. */
  key: string
  /** Random too, and public: what tells the keys of a list apart. */
  keyPrefix: string
  /** What is kept of the key. */
  hash: string
}

export function newKey(tag: string): NewKey {
  const keyPrefix = randomCharacters(PREFIX_CHARACTERS)
  const body = `${tag}_${keyPrefix}_${randomCharacters(SECRET_CHARACTERS)}`
  const key = body + checksumOf(body)
  return { key, keyPrefix, hash: hashOfKey(key) }
}

/** Whether it could have been given out, under this tag or an older one; a typo could not. */
export function isWellFormed(key: string): boolean {
  return FORM.test(key) && checksumOf(key.slice(0, -CHECKSUM_CHARACTERS)) === key.slice(-CHECKSUM_CHARACTERS)
}

/** SHA-256 in hexadecimal. Nothing slower is needed: 190 random bits cannot be guessed. */
export function hashOfKey(key: string): string {
  return createHash('sha256').update(key).digest('hex')
}

/** Letters and digits, each as likely as the others. */
export function randomCharacters(count: number, random: (size: number) => Uint8Array = randomBytes): string {
  let characters = ''
  while (characters.length < count) {
    const even = random(count).filter((byte) => byte < EVEN_BYTES)
    characters += Array.from(even, (byte) => ALPHABET[byte % ALPHABET.length]).join('')
  }
  return characters.slice(0, count)
}

function checksumOf(body: string): string {
  let rest = crc32(body)
  let checksum = ''
  for (let place = 0; place < CHECKSUM_CHARACTERS; place += 1) {
    checksum = ALPHABET[rest % ALPHABET.length] + checksum
    rest = Math.floor(rest / ALPHABET.length)
  }
  return checksum
}
