"""Amazon ECS on Fargate: clusters, task definitions, tasks and their lives."""
