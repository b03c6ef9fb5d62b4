module leavebroker/mlscore/interop/mlsclient

go 1.26.0

replace leavebroker => ../../..

require (
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
	leavebroker v0.0.0
)

require (
	github.com/cloudflare/circl v1.6.5 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/net v0.60.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/text v0.43.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260817212433-ac3dfec99bb1 // indirect
)
