"""The table of rules, in the order in which BuildKit's documentation has them."""

from __future__ import annotations

from typing import Final

from imagetool.dockerfile.lint import meaning, variables, writing
from imagetool.dockerfile.lint.finding import Rule

RULES: Final = (
    Rule("StageNameCasing", "A stage's name is not in lower case", writing.stage_name_casing),
    Rule("FromAsCasing", "FROM and AS are in different case", writing.from_as_casing),
    Rule("NoEmptyContinuation", "A blank line inside a continued instruction", writing.no_empty_continuation),
    Rule("ConsistentInstructionCasing", "Keywords in different case", writing.consistent_instruction_casing),
    Rule("DuplicateStageName", "Two stages have one name", writing.duplicate_stage_name),
    Rule("ReservedStageName", "A stage has a name that means something else", writing.reserved_stage_name),
    Rule("JSONArgsRecommended", "CMD or ENTRYPOINT in shell form", meaning.json_args_recommended),
    Rule("MaintainerDeprecated", "MAINTAINER is deprecated", writing.maintainer_deprecated),
    Rule("UndefinedArgInFrom", "FROM uses an undeclared argument", variables.undefined_arg_in_from),
    Rule("WorkdirRelativePath", "WORKDIR depends on the base image", meaning.workdir_relative_path),
    Rule("UndefinedVar", "A variable that nothing defines", variables.undefined_var),
    Rule(
        "MultipleInstructionsDisallowed",
        "An instruction without effect, because a later one replaces it",
        meaning.multiple_instructions_disallowed,
    ),
    Rule("LegacyKeyValueFormat", "ENV or LABEL without an equals sign", writing.legacy_key_value_format),
    Rule("InvalidBaseImagePlatform", "A base image for another platform", meaning.invalid_base_image_platform),
    Rule("RedundantTargetPlatform", "FROM asks for the default platform", variables.redundant_target_platform),
    Rule("SecretsUsedInArgOrEnv", "ARG or ENV may hold a secret", variables.secrets_used_in_arg_or_env),
    Rule(
        "InvalidDefaultArgInFrom",
        "FROM names no image without build arguments",
        variables.invalid_default_arg_in_from,
    ),
    Rule(
        "FromPlatformFlagConstDisallowed",
        "FROM is bound to one platform",
        variables.from_platform_flag_const_disallowed,
    ),
    Rule("CopyIgnoredFile", "COPY or ADD of a file that the ignore file leaves out", meaning.copy_ignored_file),
    Rule(
        "InvalidDefinitionDescription",
        "A comment above FROM or ARG does not begin with its name",
        writing.invalid_definition_description,
        experimental=True,
    ),
    Rule("ExposeProtoCasing", "A protocol of EXPOSE is not in lower case", meaning.expose_proto_casing),
    Rule("ExposeInvalidFormat", "EXPOSE names an address or port of the host", meaning.expose_invalid_format),
)
