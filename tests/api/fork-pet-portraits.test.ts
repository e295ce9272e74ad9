// The fork in examples/pet-portraits.json, through the suite that every fork passes.
import { forkSuite } from '../support/fork-suite.ts'

forkSuite('examples/pet-portraits.json')
