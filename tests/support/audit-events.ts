// An event of the audit log that fills every column of its row, with what is hard to write down the same way twice.
import type { AuditEvent } from '../../lib/audit.ts'

export const fullEvent = (action: string) =>
  ({
    actor: { type: 'admin' as const, id: '00000000-0000-4000-8000-000000000001' },
    impersonator: 'user_support',
    action,
    target: { type: 'user', id: 'ada' },
    reason: 'A "reason" with \\ and ünicode 🎨.',
    before: { status: 'active', n: 1.5 },
    after: { status: 'suspended', list: [1, null] },
    details: { tokens: 5 },
    ip: '203.0.113.7',
    userAgent: 'a test',
    requestId: 'request-1',
  }) satisfies AuditEvent
