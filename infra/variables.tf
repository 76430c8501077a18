variable "project" {
  description = "Id of the Google Cloud project."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "A project id has 6 to 30 lower-case letters, digits and hyphens, and begins with a letter."
  }
}

variable "region" {
  description = "Where everything runs and lies."
  type        = string
  default     = "europe-west1"

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]$", var.region))
    error_message = "A region is named like europe-west1."
  }
}

variable "name" {
  description = "What the names of all resources begin with: two deployments in one project have two names."
  type        = string
  default     = "scenebeam"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,18}[a-z0-9]$", var.name))
    error_message = "A name has 3 to 20 lower-case letters, digits and hyphens, and begins with a letter."
  }
}

variable "worker_image" {
  description = "Image of workers and launcher, docker/worker.Dockerfile, with its tag or digest."
  type        = string

  validation {
    condition     = can(regex("(:[^:/]+|@sha256:[0-9a-f]{64})$", var.worker_image)) && !endswith(var.worker_image, ":latest")
    error_message = "Name the image with a tag or digest, and not :latest: a run must be made by what was tried."
  }
}

variable "functions_image" {
  description = "Image of the functions, docker/functions.Dockerfile, with its tag or digest."
  type        = string

  validation {
    condition     = can(regex("(:[^:/]+|@sha256:[0-9a-f]{64})$", var.functions_image)) && !endswith(var.functions_image, ":latest")
    error_message = "Name the image with a tag or digest, and not :latest."
  }
}

variable "catalogs" {
  description = "Catalogues that requests may name: known names, or URLs, whose prefixes they are then."
  type        = list(string)
  default     = ["earth-search", "planetary-computer", "cdse"]

  validation {
    condition     = length(var.catalogs) > 0
    error_message = "Without a catalogue no request can run."
  }
}

variable "inputs" {
  description = "Where boundaries, areas of interest and crop calendars of requests may lie, besides the deployment's own buckets: prefixes, or https:// for any public host."
  type        = list(string)
  default     = ["https://"]
}

variable "max_scenes" {
  description = "Scenes that a request may find, at most, whatever its own limits say."
  type        = number
  default     = 10000

  validation {
    condition     = var.max_scenes >= 1
    error_message = "At least one scene."
  }
}

variable "max_bytes" {
  description = "Bytes that a request may read, at most: 500GB, 1TB."
  type        = string
  default     = "1TB"

  validation {
    condition     = can(regex("^[0-9]+(MB|GB|TB)$", var.max_bytes))
    error_message = "Write 500GB or 1TB."
  }
}

variable "max_workers" {
  description = "Dataflow workers of a run, at most."
  type        = number
  default     = 20

  validation {
    condition     = var.max_workers >= 1 && var.max_workers <= 1000
    error_message = "1 to 1000 workers."
  }
}

variable "machine_type" {
  description = "Of Dataflow's workers."
  type        = string
  default     = "n2-standard-2"

  validation {
    condition     = can(regex("^[a-z0-9]+-(standard|highmem|highcpu)-[0-9]+$", var.machine_type))
    error_message = "A predefined machine type, such as n2-standard-2: how many tasks a worker takes follows from its memory."
  }
}

variable "subnetwork" {
  description = "Subnetwork of the workers, regions/<region>/subnetworks/<name>, with Private Google Access and, for catalogues outside of Google, Cloud NAT. Null: the project's default network."
  type        = string
  default     = null
}

variable "retention_days" {
  description = "After so many days what workers left in the temporary folder is removed, and requests and statuses of runs."
  type = object({
    temporary = optional(number, 7)
    state     = optional(number, 365)
  })
  default = {}

  validation {
    condition     = var.retention_days.temporary >= 1 && var.retention_days.state >= 1
    error_message = "At least a day."
  }
}

variable "viewers" {
  description = "Who may look at runs: members such as group:team@example.com. Nobody else can, and never everybody."
  type        = list(string)
  default     = []

  validation {
    condition     = !contains(var.viewers, "allUsers") && !contains(var.viewers, "allAuthenticatedUsers")
    error_message = "The status pages are not for everybody: name members."
  }
}

variable "alert_emails" {
  description = "Whom a failed run is told to."
  type        = list(string)
  default     = []
}
