package input

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/lease"
)

// Services are what an input talks to, for tools that look at the same stream and table: with the endpoints, credentials and
// names of its configuration.
type Services struct {
	Kinesis  *kinesis.Client
	DynamoDB *dynamodb.Client
	// Table is the lease table. It may not exist yet.
	Table *lease.Table

	clients *clients
}

// Connect makes the clients of a configuration. No request is made by that.
func (c Config) Connect(ctx context.Context, log *service.Logger) (*Services, error) {
	made, err := newClients(ctx, c, log)
	if err != nil {
		return nil, err
	}
	return &Services{Kinesis: made.kinesis, DynamoDB: made.dynamodb, Table: c.table(made), clients: made}, nil
}

// Close closes idle connections.
func (s *Services) Close() { s.clients.close() }

// LeaseTable is the name of the configuration's lease table.
func (c Config) LeaseTable() string { return c.tableName() }
