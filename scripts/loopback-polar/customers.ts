// The customers of the shop: found by e-mail or external id, each of which belongs to one of them only.
import { announceCustomerState, type Books, touch } from './books.ts'
import { buildCustomer, type Customer } from './objects.ts'
import { unusable } from './refusals.ts'
import { revoke } from './subscriptions.ts'

type CustomerChanges = Partial<
  Pick<Customer, 'email' | 'external_id' | 'name' | 'metadata' | 'billing_address' | 'locale'>
>

export function customerByEmail(books: Books, email: string): Customer | undefined {
  return [...books.customers.values()].find((one) => one.email.toLowerCase() === email.toLowerCase())
}

export function customerByExternalId(books: Books, externalId: string): Customer | undefined {
  return [...books.customers.values()].find(({ external_id }) => external_id === externalId)
}

export function createCustomer(books: Books, given: CustomerChanges & { email: string }): Customer {
  requireFree(books, given)
  const customer = addCustomer(books, given)
  announceCustomerState(books, customer.id)
  return customer
}

/** A new customer in the middle of something that announces the customer's state at its end. */
export function addCustomer(books: Books, given: CustomerChanges & { email: string }): Customer {
  const customer = buildCustomer(books.at(), given)
  books.customers.set(customer.id, customer)
  books.announce({ type: 'customer.created', data: customer })
  return customer
}

export function updateCustomer(books: Books, customer: Customer, changes: CustomerChanges): Customer {
  const { external_id } = changes
  if (customer.external_id && external_id !== undefined && external_id !== customer.external_id) {
    throw unusable('external_id', 'Customer external ID cannot be updated.', external_id)
  }
  requireFree(books, changes, customer)
  Object.assign(customer, changes)
  touch(books, customer)
  books.announce({ type: 'customer.updated', data: customer })
  announceCustomerState(books, customer.id)
  return customer
}

/** Ends the customer's subscriptions at once and forgets the customer; orders stay. */
export function deleteCustomer(books: Books, customer: Customer): void {
  for (const subscription of books.subscriptions.values()) {
    if (subscription.customer_id === customer.id && !subscription.ended_at) revoke(books, subscription)
  }
  customer.deleted_at = books.at()
  touch(books, customer)
  books.customers.delete(customer.id)
  books.announce({ type: 'customer.deleted', data: customer })
}

function requireFree(books: Books, { email, external_id }: CustomerChanges, self?: Customer): void {
  const sameEmail = email ? customerByEmail(books, email) : undefined
  if (sameEmail && sameEmail !== self) {
    throw unusable('email', 'A customer with this email address already exists.', email)
  }
  const sameExternalId = external_id ? customerByExternalId(books, external_id) : undefined
  if (sameExternalId && sameExternalId !== self) {
    throw unusable('external_id', 'A customer with this external ID already exists.', external_id)
  }
}
