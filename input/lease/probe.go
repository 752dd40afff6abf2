package lease

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// probeKey is the key of no shard.
const probeKey = "kinesis-pulsar-connection-test"

// Probe finds out whether everything may be done with the table that leases need, and changes nothing: each write has a
// condition that an item which does not exist cannot meet, and DynamoDB asks for the permission first. The errors name the
// operations that are refused.
func (t *Table) Probe(ctx context.Context) error {
	key := map[string]types.AttributeValue{attrKey: text(probeKey)}
	name, condition := aws.String(t.name), aws.String("attribute_exists("+attrCounter+")")
	scan := func() error {
		_, err := t.api.Scan(ctx, &dynamodb.ScanInput{TableName: name, Limit: aws.Int32(1)})
		return err
	}
	get := func() error {
		_, err := t.api.GetItem(ctx, &dynamodb.GetItemInput{TableName: name, Key: key, ConsistentRead: aws.Bool(true)})
		return err
	}
	put := func() error {
		_, err := t.api.PutItem(ctx, &dynamodb.PutItemInput{TableName: name, Item: key, ConditionExpression: condition})
		return err
	}
	update := func() error {
		_, err := t.api.UpdateItem(ctx, &dynamodb.UpdateItemInput{
			TableName: name, Key: key, ConditionExpression: condition,
			UpdateExpression: aws.String("REMOVE " + attrOwner),
		})
		return err
	}
	remove := func() error {
		_, err := t.api.DeleteItem(ctx, &dynamodb.DeleteItemInput{TableName: name, Key: key, ConditionExpression: condition})
		return err
	}
	var errs []error
	for _, p := range []struct {
		permission string
		do         func() error
	}{{"Scan", scan}, {"GetItem", get}, {"PutItem", put}, {"UpdateItem", update}, {"DeleteItem", remove}} {
		err := p.do()
		var asExpected *types.ConditionalCheckFailedException
		if err == nil || errors.As(err, &asExpected) {
			continue
		}
		errs = append(errs, fmt.Errorf("dynamodb:%s on lease table %s: %w", p.permission, t.name, err))
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}
