// Package intents implements draft-kohbrok-mls-leaf-operation-intents-01:
// the LeafOperationIntent of a member who leaves, its signature and its
// verification, the LeafOperationProposal that carries it, and the life of
// intents in one group as a pure step function.
package intents
