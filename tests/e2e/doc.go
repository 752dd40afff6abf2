// Package e2e proves the whole pipeline, from records put into Kinesis to messages stored by Pulsar. Each test tells one
// story of use or of failure, and ends with an account: every record of the stream against what the topic holds.
//
// Kinesis, DynamoDB and the Pulsar broker are wire-level stand-ins, so the stories run wherever Go does. Those in which
// the real services could behave otherwise are told a second time with Apache Pulsar and DynamoDB Local. Pipelines are
// streams built in this process, or the built binary where a process has to die.
//
// -e2e.full tells the stories at their full sizes.
package e2e
