# ruff: noqa: SIM905 - five hundred quoted names would take four times the room
"""Keys that config.json of a model may have: those of transformers' families for text, and what older releases wrote.

From transformers 5.23: the settings of every family that has a head for sequences, tokens, answers, missing words or
translations, without those that name files, code, parts of other families or plans for several machines; and two
that DeBERTa asks for without having them. A test compares the two.
"""

CONFIG_KEYS = frozenset(
    """
    _name_or_path _num_labels _sliding_window_pattern activation activation_dropout activation_function
    adapter_layer_norm adapter_rank adapter_reduction_factor adapter_reuse_layer_norm add_bias_linear
    add_bias_logits add_cross_attention add_final_layer_norm add_pooling_layer afn aggregation_labels
    aggregation_loss_weight aggregation_temperature alibi allow_empty_column_selection answer_loss_cutoff
    answer_loss_importance apply_residual_connection_post_layernorm approx_mode architectures asm attention_bias
    attention_dropout attention_head_dim attention_head_size attention_hidden_size attention_layers
    attention_out_bias attention_probs_dropout_prob attention_softmax_in_fp32 attention_type attention_types
    attention_window attn_layer_offset attn_layer_period attn_layers attn_logit_softcapping attn_pdrop attn_type
    audio_samples_per_frame audio_token_id aux_loss_coef average_approximation_function average_logits_per_cell
    axial_norm_std axial_pos_embds axial_pos_embds_dim axial_pos_shape bad_words_ids bbox_scale bi_data bias
    block_per_row block_repeats block_size block_sizes boi_token_index bos_index bos_token_id cache_implementation
    causal cell_selection_preference channel_shrink_ratio chunk_size chunk_size_feed_forward chunk_size_lm_head
    clamp_len classif_dropout classifier_activation classifier_bias classifier_dropout classifier_dropout_prob
    classifier_dropout_rate classifier_pooling clip_qkv cls_dropout cls_token_id concat_input conv_act conv_groups
    conv_kernel_size conv_window convert_sync_batchnorm coordinate_size cross_attention_hidden_size
    cross_attention_shape_for_attention cross_attention_widening_factor d_ff d_head d_inner d_kv d_latents d_model
    decoder_attention_heads decoder_bias decoder_ffn_dim decoder_layerdrop decoder_layers decoder_sparse_step
    decoder_start_token_id decoder_vocab_size default_language dense_act_fn deterministic_flash_attn dff dim
    dim_bbox dim_bbox_projection dim_bbox_sinusoid_emb_1d dim_bbox_sinusoid_emb_2d dim_model_base directionality
    disable_per_token_loss diversity_penalty do_layer_norm_before do_sample down_scale_factor downsampling_rate
    dropout dropout_rate dtype early_stopping emb_dim emb_layer_norm_before emb_pdrop embd_pdrop embed_dropout
    embed_init_std embedding_dropout embedding_fraction embedding_size enable_bias enable_pronunciation enable_shape
    encoder_attention_heads encoder_ffn_dim encoder_layerdrop encoder_layers end_n_top entity_emb_size
    entity_vocab_size eod_token_id eoi_token_index eos_index eos_token_id expansion_ratio expert_layer_offset
    expert_layer_period extra_pos_embeddings fast_qkv feed_forward_proj feed_forward_size ff_activation ffn_dim
    ffn_hidden_size final_logit_softcapping finetuning_task first_k_dense_replace force_dequant forced_bos_token_id
    forced_eos_token_id full_attn_alpha_factor full_attn_beta_factor gap_size gated_norm_rank gelu_activation
    global_attn_every_n_layers global_rope_theta gpt_hidden_size gradient_checkpointing has_relative_attention_bias
    has_spatial_attention_bias has_visual_segment_embedding hash_code_len hash_seed head_dim head_ratio head_type
    hidden_act hidden_activation hidden_dim hidden_dropout hidden_dropout_prob hidden_mamba_act hidden_size
    huber_loss_delta hybrid_layer_ids id2label image_feature_pool_shape image_size image_token_id image_token_index
    index_head_dim index_n_heads index_topk init_cell_selection_weights_to_zero init_std
    initial_prior_diagonal_n_blocks initial_prior_first_n_blocks initializer_cutoff_factor initializer_factor
    initializer_range initializer_std inner_group_num input_embedding_size input_jitter_noise input_size
    intermediate_groups intermediate_size intra_bottleneck_size inv_coeff_init_option is_decoder is_encoder
    is_encoder_decoder is_gated_act is_moe k_groups keep_window_size key_query_shared_bottleneck kv_channels
    kv_lora_rank l_layers label2id lambda_std_dev lang_id language languages layer_norm_elementwise_affine
    layer_norm_eps layer_norm_epsilon layer_types layerdrop layers_block_type learned_pos_emb legacy length_penalty
    linear_attn_alpha_factor linear_attn_beta_factor linear_conv_kernel_dim linear_key_head_dim linear_num_key_heads
    linear_num_value_heads linear_value_head_dim lm_head_bias ln_before_adapter local_attention
    local_attention_probs_dropout_prob local_attn_chunk_length local_num_chunks_after local_num_chunks_before
    local_rope_theta local_transformer_stride logit_scale lsh_attention_probs_dropout_prob lsh_attn_chunk_length
    lsh_backward lsh_num_chunks_after lsh_num_chunks_before mamba_conv_bias mamba_d_conv mamba_d_state mamba_dt_rank
    mamba_expand mamba_headdim mamba_ngroups mamba_proj_bias mask_index mask_token_id max_2d_position_embeddings
    max_decoder_position_embeddings max_depth max_encoder_position_embeddings max_length max_num_columns
    max_num_rows max_position_embeddings max_rel_2d_pos max_rel_pos max_relative_positions max_seq_len
    max_window_layers max_xpath_subs_unit_embeddings max_xpath_tag_unit_embeddings mem_len min_length
    mlp_alpha_factor mlp_beta_factor mlp_bias mlp_dropout mlp_layer_types mlp_only_layers mm_tokens_per_image
    model_max_length model_type moe_intermediate_size moe_topk multi_query n_embd n_group n_head n_heads n_inner
    n_langs n_layer n_layers n_mamba_heads n_positions n_relations n_routed_experts n_shared_experts
    net_structure_type new_decoder_architecture no_aggregation_label_index no_bias no_repeat_ngram_size
    no_rope_layer_interval no_rope_layers norm_bias norm_eps norm_epsilon norm_rel_ebd norm_topk_prob norm_type
    normalization_type normalize_before normalize_embedding num_aggregation_labels num_attention_heads
    num_attr_labels num_beam_groups num_beams num_blocks num_buckets num_channels num_cross_attention_heads
    num_decoder_layers num_experts num_experts_per_tok num_feedforward_networks num_frames num_groups num_hash
    num_hash_buckets num_hash_functions num_hashes num_heads num_hidden_groups num_hidden_layers num_key_value_heads
    num_kv_heads num_labels num_landmarks num_latents num_layers num_ln_in_parallel_attn num_local_experts
    num_logits_to_keep num_mem_blocks num_memory_blocks num_mtp_layers num_nextn_predict_layers num_object_labels
    num_qa_labels num_query_groups num_random_blocks num_return_sequences num_self_attends_per_block
    num_self_attention_heads onnx_export original_max_position_embeddings output_attentions output_embedding_size
    output_groups output_hidden_states output_num_channels output_past output_router_logits output_shape pad_index
    pad_token_id padding_idx parallel_attn patch_size pixel_shuffle_factor pool_q_only pooler_dropout pooler_fc_size
    pooler_hidden_act pooler_hidden_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head
    pooler_type pooling pooling_type pos_att_type position_biased_input position_buckets position_embedding_type
    positive_label_weight post_attention_groups pre_norm prediction_head_size prefix pretraining_tp problem_type
    prompt_length prompt_mid_dim pronunciation_embed_dim pronunciation_vocab_size pruned_heads q_groups q_lora_rank
    qa_dropout qk_channels qk_head_dim qk_layernorm qk_nope_head_dim qk_rope_head_dim qkv_bias quant_mode
    query_pre_attn_scalar question_token_id r_layers reference_compile rel_2d_pos_bins rel_pos_bins
    relative_attention relative_attention_max_distance relative_attention_num_buckets reorder_and_upcast_attn
    repad_logits_with_grad repetition_penalty rescale_embeddings reset_position_index_per_cell resid_dropout
    resid_pdrop residual_dropout return_dict reuse_len rms_norm_eps rope_interleave rope_local_base_freq
    rope_parameters rope_scaling rope_theta rotary_dim rotary_emb_base rotary_pct rotary_value routed_scaling_factor
    router_aux_loss_coef router_jitter_noise same_length samples_per_patch scale_attention_softmax_in_fp32
    scale_attn_by_inverse_layer_idx scale_attn_weights scale_decoder_outputs scale_depth scale_emb scale_embedding
    segment_means_seq_len select_one_column self_attention_widening_factor sep_token_id separate_cls
    seq_classif_dropout shape_embed_dim shape_size shape_vocab_size share_att_key share_encoder_decoder_embeddings
    shared_expert_intermediate_size sinusoidal_embeddings sinusoidal_pos_embds sliding_window sliding_window_pattern
    slow_but_exact sparse_pred_ignore_index sparse_prediction start_n_top static_position_embeddings subs_pad_id
    summary_activation summary_first_dropout summary_last_dropout summary_proj_to_labels summary_type
    summary_use_proj swiglu_alpha swiglu_limit tag_pad_id talking_head task_mask_lm task_matched task_obj_predict
    task_qa task_type_vocab_size temperature text_embed tie_encoder_decoder tie_weights tie_word_embeddings
    time_step_floor time_step_max time_step_min timestamp_token_id token_classification_bias token_dropout
    tokenizer_class top_k top_p topk_group topk_method torch_dtype torchscript tpu_short_seq_length train_size
    transformers_version trigram_input true_hidden_size truncate_seq type_vocab_size type_vocab_sizes unk_index
    untie_r upsampling_kernel_size use_answer_as_supervision use_associative_scan use_bfloat16 use_bias
    use_bidirectional_attention use_bottleneck use_bottleneck_attention use_cache use_conv_bias
    use_entity_aware_attention use_expectation use_fast_hash use_flash_attn use_gumbel_for_aggregation
    use_gumbel_for_cells use_lang_emb use_long_context use_mambapy use_mem_eff_path use_mem_rope use_mems_eval
    use_mems_train use_normalized_answer_loss use_parallel_residual use_prompt use_qkv_bias use_query_residual
    use_shared_attention_adapter use_sliding_window use_task_id use_tpu_fourier_optimizations v_channels v_groups
    v_head_dim video_token_id vision_end_token_id vision_start_token_id visual_attr_loss visual_embed
    visual_feat_dim visual_feat_loss visual_loss_normalizer visual_obj_loss visual_pos_dim vocab_list vocab_size
    window_size word_embed_proj_dim x_layers xla_device xpath_unit_hidden_size
    """.split()
)

TOKENIZER_KEYS = frozenset(
    """
    add_bos_token add_cls_token add_eos_token add_prefix_space add_sep_token added_tokens_decoder
    additional_special_tokens backend bos_token bos_token_id clean_up_tokenization_spaces cls_token do_basic_tokenize
    do_clean_text do_lower_case do_subword_tokenize do_word_tokenize eos_token eos_token_id
    separate_vocabs source_lang target_lang
    errors extra_ids extra_special_tokens is_local keep_accents lang language legacy local_files_only mask_token max_len
    max_length model_input_names model_max_length model_specific_special_tokens name_or_path never_split
    offset only_label_first_subword pad_id pad_to_multiple_of pad_token pad_token_id pad_token_segment_id
    pad_token_type_id padding padding_side remove_space return_token_type_ids sep_token sequence_length sp_model_kwargs
    spaces_between_special_tokens special_tokens special_tokens_map_file split_by_punct split_special_tokens
    src_lang stride strip_accents subword_tokenizer_type tgt_lang tokenize_chinese_chars tokenizer_class tokenizer_type
    trim_offsets trim_content truncation truncation_side truncation_strategy type_vocab_size unicode_normalizer unk_id
    unk_token use_default_system_prompt use_fast use_regex vocab_size vocab_type word_tokenizer_type wordpieces_prefix
    """.split()
)
"""Of tokenizer_config.json: without those that name files (`vocab_file`), classes of the folder's own, or templates."""
