// Package pb is the protocol of the test runner, generated from
// proto/mls_client.proto.
package pb

//go:generate sh -c "cd .. && go run github.com/bufbuild/buf/cmd/buf@v1.75.0 generate"
