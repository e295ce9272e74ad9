// The fork in examples/photo-captions.json, through the suite that every fork passes.
import { forkSuite } from '../support/fork-suite.ts'

forkSuite('examples/photo-captions.json')
