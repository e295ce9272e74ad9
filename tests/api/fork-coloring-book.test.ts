// The fork in fork.config.json, through the suite that every fork passes.
import { forkSuite } from '../support/fork-suite.ts'

forkSuite('fork.config.json')
