// What a tool begins and ends with, and the choices that follow from it.

export const takesPhoto = (tool) => tool.does !== 'text->image' && tool.does !== 'text->text'
export const makesPicture = (tool) => tool.does !== 'image->text' && tool.does !== 'text->text'

/** Drafts only where the fork has a price for them. */
export const qualitiesOf = (tool) => [...(tool.draftPriceTokens === undefined ? [] : ['draft']), 'standard', 'high']

export function priceOf(tool, quality) {
  if (quality === 'draft') return tool.draftPriceTokens ?? tool.priceTokens
  return quality === 'high' ? tool.highQualityPriceTokens : tool.priceTokens
}
