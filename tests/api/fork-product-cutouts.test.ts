// The fork in examples/product-cutouts.json, through the suite that every fork passes.
import { forkSuite } from '../support/fork-suite.ts'

forkSuite('examples/product-cutouts.json')
