// The work on the page: the chosen photo or the words, the running generation, and the results of this visit.
import { useEffect, useRef, useState } from '../vendor/preact-htm.js'
import { newId } from './api.js'
import { explain, explainPhoto } from './explain.js'
import { generate, resultOf } from './generate.js'
import { PhotoError, preparePhoto } from './photo.js'
import { t } from './texts.js'
import { takesPhoto } from './tool.js'

/** After these the server may still hold the first request's answer: a repeat keeps its key. */
const SAME_ATTEMPT = new Set(['NETWORK', 'IDEMPOTENCY_IN_PROGRESS', 'RATE_LIMITED', 'UNAUTHENTICATED', 'TOKEN_EXPIRED'])

/** What stands for a longer text, in labels and file names. */
const NAME_CHARACTERS = 40

/** `askToSignIn()` is called when a visitor presses the button; the generation goes on by itself once they are in. */
export function useStudio({ config, account, askToSignIn }) {
  const tool = config.tools[0]
  const [photo, setPhoto] = useState(null)
  const [words, setWords] = useState('')
  const [isEditing, setIsEditing] = useState(false)
  const [options, setOptions] = useState(() => defaultOptions(tool))
  const [phase, setPhase] = useState('idle')
  const [progress, setProgress] = useState(null)
  const [problem, setProblem] = useState(null)
  const [results, setResults] = useState([])
  const [shownId, setShownId] = useState(null)
  const [announcement, setAnnouncement] = useState('')
  const attempt = useRef(null)
  const running = useRef(null)
  const waitsForSignIn = useRef(false)

  const source = takesPhoto(tool) ? photo : written(words)

  async function choose(file) {
    if (running.current || !file || !takesPhoto(tool)) return
    setPhase('preparing')
    setProblem(null)
    setAnnouncement(t('preparing'))
    try {
      const prepared = await preparePhoto(file, config.limits)
      if (photo && !results.some((result) => result.photo === photo)) URL.revokeObjectURL(photo.url)
      setPhoto(prepared)
      setShownId(null)
      setAnnouncement(t('photoReady', prepared))
    } catch (error) {
      if (!(error instanceof PhotoError)) throw error
      setAnnouncement('')
      setProblem(explainPhoto(error))
    } finally {
      setPhase('idle')
    }
  }

  async function create() {
    if (running.current) return
    if (!source) {
      if (!takesPhoto(tool)) edit(t('wordsMissing'))
      return
    }
    if (!account.user) {
      waitsForSignIn.current = true
      if (account.user === null) askToSignIn()
      return
    }
    const fingerprint = JSON.stringify([source.id, options])
    if (attempt.current?.fingerprint !== fingerprint) attempt.current = { fingerprint, key: newId() }
    const stop = new AbortController()
    running.current = stop
    setPhase('working')
    setProblem(null)
    setShownId(null)
    setIsEditing(false)
    report({ event: 'queued', data: {} }, Date.now())
    try {
      await follow(generate({ tool, source, options, key: attempt.current.key, signal: stop.signal }), Date.now())
    } catch (error) {
      fail(error)
    } finally {
      running.current = null
      setPhase('idle')
      setProgress(null)
    }
  }

  async function follow(events, startedAt) {
    for await (const event of events) {
      if (event.event === 'done') finish(event.data)
      else report(event, startedAt)
    }
  }

  function report({ event, data }, startedAt) {
    const text = progressText(event, data)
    if (!text) return
    setProgress({ text, startedAt })
    setAnnouncement(text)
  }

  function finish(reply) {
    attempt.current = null
    const { result: _base64, ...facts } = reply
    const blob = resultOf(reply)
    const made = { id: newId(), photo, name: source.name, text: reply.text, options, facts, blob }
    setResults((earlier) => [...earlier, { ...made, url: URL.createObjectURL(blob), number: earlier.length + 1 }])
    setShownId(made.id)
    setAnnouncement(t('resultReady'))
    account.applyBalance(reply.balance)
  }

  function fail(error) {
    if (!running.current) return
    if (error.name === 'AbortError') {
      setAnnouncement(t('stopped'))
      setProblem({ tone: 'note', title: '', text: t('stopped'), note: '' })
      return
    }
    if (!SAME_ATTEMPT.has(error.code)) attempt.current = null
    setAnnouncement('')
    setProblem(explain(error))
    if (account.user) account.refreshBilling()
    if (!error.code) throw error
  }

  /** Back to the words, with a remark on them. */
  function edit(remark) {
    setShownId(null)
    setIsEditing(true)
    setProblem(remark ? { tone: 'note', title: '', text: remark, note: '' } : null)
  }

  useEffect(() => {
    if (!waitsForSignIn.current || account.user === undefined) return
    if (account.user) waitsForSignIn.current = false
    create()
  }, [account.user])

  return {
    tool,
    photo,
    words,
    source,
    isEditing,
    options,
    phase,
    progress,
    problem,
    results,
    shown: results.find(({ id }) => id === shownId) ?? null,
    announcement,
    choose,
    create,
    edit: () => edit(),
    setWords: (next) => {
      setWords(next)
      setIsEditing(false)
      setProblem(null)
    },
    stop: () => running.current?.abort(),
    setOption: (name, value) => setOptions((known) => ({ ...known, [name]: value })),
    showResult: (id) => {
      setProblem(null)
      setShownId(id)
    },
    /** Leaves nothing for the next person at this screen. */
    clear: () => {
      running.current?.abort()
      running.current = null
      setPhoto(null)
      setWords('')
      setResults([])
      setShownId(null)
      setProblem(null)
    },
    setProblem,
    forgetIntent: () => {
      waitsForSignIn.current = false
    },
    isWaitingForSignIn: () => waitsForSignIn.current,
  }
}

/** Words as a source: whoever trims them alike sends the same. */
function written(words) {
  const text = words.trim()
  const name = text.length > NAME_CHARACTERS ? `${text.slice(0, NAME_CHARACTERS - 1)}…` : text
  return text === '' ? null : { id: text, words: text, name }
}

function defaultOptions(tool) {
  const own = Object.entries(tool.options ?? {}).map(([name, option]) => [name, option.default ?? option.enum[0]])
  return { quality: 'standard', ...Object.fromEntries(own) }
}

function progressText(event, { provider, from, to }) {
  if (event === 'queued') return t('progressQueued')
  if (event === 'provider') return t('progressProvider', { provider: providerName(provider) })
  if (event === 'fallback') return t('progressFallback', { from: providerName(from), to: providerName(to) })
  if (event === 'reconnecting') return t('progressReconnecting')
  return undefined
}

/** Provider ids as people write them; an unknown one is capitalised. */
export function providerName(id = '') {
  return { openai: 'OpenAI' }[id] ?? id.charAt(0).toUpperCase() + id.slice(1)
}
