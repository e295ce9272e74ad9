// The work on the page: the chosen photo, the running generation, and the pictures of this visit.
import { useEffect, useRef, useState } from '../vendor/preact-htm.js'
import { newId } from './api.js'
import { explain, explainPhoto } from './explain.js'
import { generate, pictureOf } from './generate.js'
import { PhotoError, preparePhoto } from './photo.js'
import { t } from './texts.js'

/** After these the server may still hold the first request's answer: a repeat keeps its key. */
const SAME_ATTEMPT = new Set(['NETWORK', 'IDEMPOTENCY_IN_PROGRESS', 'RATE_LIMITED', 'UNAUTHENTICATED', 'TOKEN_EXPIRED'])

/** `askToSignIn()` is called when a visitor presses the button; the generation goes on by itself once they are in. */
export function useStudio({ config, account, askToSignIn }) {
  const tool = config.tools[0]
  const [photo, setPhoto] = useState(null)
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

  async function choose(file) {
    if (running.current || !file) return
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
    if (!photo || running.current) return
    if (!account.user) {
      waitsForSignIn.current = true
      if (account.user === null) askToSignIn()
      return
    }
    const fingerprint = JSON.stringify([photo.id, options])
    if (attempt.current?.fingerprint !== fingerprint) attempt.current = { fingerprint, key: newId() }
    const stop = new AbortController()
    running.current = stop
    setPhase('working')
    setProblem(null)
    setShownId(null)
    report({ event: 'queued', data: {} }, Date.now())
    try {
      await follow(generate({ photo, options, key: attempt.current.key, signal: stop.signal }), Date.now())
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
    const blob = pictureOf(reply)
    const picture = { id: newId(), photo, options, facts, blob, url: URL.createObjectURL(blob) }
    setResults((earlier) => [...earlier, { ...picture, number: earlier.length + 1 }])
    setShownId(picture.id)
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

  useEffect(() => {
    if (!waitsForSignIn.current || account.user === undefined) return
    if (account.user) waitsForSignIn.current = false
    create()
  }, [account.user])

  return {
    tool,
    photo,
    options,
    phase,
    progress,
    problem,
    results,
    shown: results.find(({ id }) => id === shownId) ?? null,
    announcement,
    choose,
    create,
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
