// What the shop sells.
import { createHash } from 'node:crypto'
import type { models } from '@polar-sh/sdk/2026-10'
import { type Books, touch } from './books.ts'
import { buildPrice, buildProduct, type PriceDraft, type ProductDraft } from './objects.ts'

/** Puts a product up for sale; with `stableId` its id follows from its name and metadata, the same in every run. */
export function createProduct(books: Books, draft: ProductDraft, stableId = false): models.Product {
  const product = stockProduct(books, draft, stableId)
  books.announce({ type: 'product.created', data: product })
  return product
}

/** The same for what is on sale from the start, which nobody is told of. */
export function stockProduct(books: Books, draft: ProductDraft, stableId = false): models.Product {
  const product = buildProduct(books.at(), stableId ? { id: stableIdOf(draft), ...draft } : draft)
  books.products.set(product.id, product)
  return product
}

export interface ProductChanges
  extends Partial<Pick<models.Product, 'name' | 'description' | 'metadata' | 'is_archived'>> {
  /** Replaces the prices; one that is given by id stays. */
  prices?: (PriceDraft | { id: string })[]
}

export function updateProduct(books: Books, product: models.Product, { prices, ...changes }: ProductChanges): void {
  Object.assign(product, changes)
  if (prices) {
    product.prices = prices.flatMap((price) =>
      'id' in price
        ? product.prices.filter(({ id }) => id === price.id)
        : [buildPrice(books.at(), product.id, 'catalog', price)],
    )
  }
  touch(books, product)
  books.announce({ type: 'product.updated', data: product })
}

function stableIdOf({ name, metadata }: ProductDraft): string {
  const hash = createHash('sha256')
    .update(JSON.stringify([name, metadata]))
    .digest('hex')
  return [
    hash.slice(0, 8),
    hash.slice(8, 12),
    `4${hash.slice(13, 16)}`,
    `8${hash.slice(17, 20)}`,
    hash.slice(20, 32),
  ].join('-')
}
