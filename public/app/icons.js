// The page's line icons, drawn in the current text colour and hidden from screen readers.
import { html } from '../vendor/preact-htm.js'

const PATHS = {
  photo: 'M4 5.5h16v13H4zM4 15l4.5-4.5 5 5M13 14l2.5-2.5L20 16M15.5 8.8v.01',
  camera: 'M4 8h3.5L9 5.5h6L16.5 8H20v11H4zM12 16.5a3.2 3.2 0 1 0 0-6.4 3.2 3.2 0 0 0 0 6.4',
  sparkle:
    'M11 4c.6 4 2.4 5.8 6.4 6.4-4 .6-5.8 2.4-6.4 6.4-.6-4-2.4-5.8-6.4-6.4C8.6 9.8 10.4 8 11 4M18.5 15.5c.2 1.5.9 2.2 2.4 2.4-1.5.2-2.2.9-2.4 2.4-.2-1.5-.9-2.2-2.4-2.4 1.5-.2 2.2-.9 2.4-2.4',
  download: 'M12 4v10.5M7.5 10.5 12 15l4.5-4.5M5 19.5h14',
  copy: 'M9 9h10.5v10.5H9zM15 9V4.5H4.5V15H9',
  print: 'M7 9V4.5h10V9M7 17H4.5V9h15v8H17M7 14h10v5.5H7z',
  refresh: 'M19 12a7 7 0 1 1-2.2-5.1M17.2 3.5v3.7h-3.7',
  check: 'M5 12.5 9.8 17 19 7.5',
  gift: 'M4.5 9.5h15V13h-15zM6 13h12v6.5H6zM12 9.5v10M12 9.5C9 9.5 7.5 8.3 7.5 6.8 7.5 5 10.8 4.4 12 9.5M12 9.5c3 0 4.5-1.2 4.5-2.7 0-1.8-3.3-2.4-4.5 2.7',
  shield: 'M12 3.8 19 6v5.5c0 4.3-2.9 7.4-7 8.8-4.1-1.4-7-4.5-7-8.8V6zM9 11.8l2.2 2.2 4-4.2',
  alert: 'M12 4.5 20.5 19h-17zM12 10v4M12 16.6v.01',
  clock: 'M12 20a8 8 0 1 0 0-16 8 8 0 0 0 0 16M12 7.5V12l3 2',
  close: 'M6.5 6.5l11 11M17.5 6.5l-11 11',
  drop: 'M12 15V5M8 8.5 12 4.5l4 4M4.5 14.5v5h15v-5',
  handles: 'M9.5 7.5 5 12l4.5 4.5M14.5 7.5 19 12l-4.5 4.5',
  coin: 'M12 19.5a7.5 7.5 0 1 0 0-15 7.5 7.5 0 0 0 0 15M12 8.2v7.6M9.8 10.2 12 8.2l2.2 2',
}

export function Icon({ name }) {
  return html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false"><path d=${PATHS[name]} /></svg>`
}
